"""How many steps the devices run between two checks for stop signals: about a second's worth."""

import time
from collections.abc import Callable, Iterator

from anchor_jax.runtime import multihost

_CHUNK_SECONDS = 1.0  # the devices are idle for less than a thousandth of it between two chunks


class StepChunker:
    """Divide steps into chunks of about a second, the same on all processes, and stop all processes at the same step.

    Attributes:
      stop_signal: number of the stop signal that a process received; 0 as long as none did.
    """

    def __init__(self, received_signal: Callable[[], int] = int):
        """Start with chunks of one step.

        Args:
          received_signal: returns the number of the stop signal that this process received, 0 if none; see
            `preemption.catch_stop_signals`. By default there is none.
        """
        self._received_signal = received_signal
        self._num_steps = 1
        self.stop_signal = 0

    def chunks(self, step: int, until: int) -> Iterator[tuple[int, int]]:
        """Yield (steps done, steps to run next) from `step` to `until`, or until a process receives a stop signal."""
        while step < until and not self._is_stopped():
            num_steps = min(self._num_steps, until - step)
            started = time.perf_counter()
            yield step, num_steps
            steps_per_chunk = int(num_steps * _CHUNK_SECONDS / max(time.perf_counter() - started, 1e-9))
            self._num_steps = max(min(steps_per_chunk, 2 * self._num_steps), 1)
            step += num_steps

    def _is_stopped(self) -> bool:
        signals, nums_steps = multihost.process_allgather([self._received_signal(), self._num_steps]).T
        self.stop_signal, self._num_steps = int(signals.max()), int(nums_steps.min())
        return self.stop_signal != 0
