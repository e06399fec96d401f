"""How many steps the devices are given at once, so that the host looks in about every second."""

import time
from collections.abc import Callable, Iterator

from anchor_jax.runtime import multihost

_SECONDS = 1.0  # between two looks; a pause of the devices, for less than a thousandth of that, costs nothing


class StepChunker:
    """Divides steps into pieces of about a second, the same on all processes, and stops them all at once."""

    def __init__(self, asked_to_stop: Callable[[], int] = int):
        """`asked_to_stop` tells the signal that asks this process to stop, 0 where none does, as always by default."""
        self._asked_to_stop = asked_to_stop
        self._num = 1
        self.signal = 0  # by which any process was asked to stop

    def chunks(self, done: int, stop: int) -> Iterator[tuple[int, int]]:
        """Steps done and steps to do, up to `stop`, or until a process is asked to stop."""
        while done < stop and not self._is_over():
            num = min(self._num, stop - done)
            started = time.perf_counter()
            yield done, num
            at_once = int(num * _SECONDS / max(time.perf_counter() - started, 1e-9))
            self._num = max(min(at_once, 2 * self._num), 1)
            done += num

    def _is_over(self):
        signals, nums = multihost.process_allgather([self._asked_to_stop(), self._num]).T
        self.signal, self._num = int(signals.max()), int(nums.min())
        return self.signal != 0
