"""Metrics of a server for Prometheus."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST  # of `Metrics.text`
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counts and times of one server.

    Args:
      num_waiting: returns how many images wait now.
      sizes: of batches.
    """

    def __init__(self, num_waiting: Callable[[], int], sizes: tuple[int, ...]):
        self._registry = CollectorRegistry()
        of_requests = {"labelnames": ("status",), "registry": self._registry}
        self._requests = Counter("anchor_jax_requests", "Requests of predictions, by HTTP status.", **of_requests)
        self._seconds = Histogram(
            "anchor_jax_request_seconds",
            "Time from a request's arrival to its response.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "anchor_jax_batch_images",
            "Images of a batch, without the padding.",
            buckets=sizes,
            registry=self._registry,
        )
        waiting = Gauge("anchor_jax_waiting_images", "Images that wait for a batch.", registry=self._registry)
        waiting.set_function(num_waiting)

    def add_request(self, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def add_batch(self, num_images: int) -> None:
        """Count a batch."""
        self._batches.observe(num_images)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
