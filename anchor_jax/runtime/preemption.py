"""Being asked to stop, by SIGTERM or SIGINT: the first is noted, the second ends the process at once."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from anchor_jax.core.errors import Preempted

_SAME_SECONDS = 1.0  # in which what asks once may send several signals, to a process and to its group
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Callable[[], int]]:
    """Note the first signal that asks to stop; what is yielded tells its number, 0 if there was none.

    It is noted, and a second one, a second later or more, ends the process, at once: also while the main thread waits
    for a compiler or a device, when Python itself would run no handler. Signals can be listened to from the main thread
    of a program alone; in another nobody ever asks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received: list[int] = []
    ours, of_signals = socket.socketpair()
    of_signals.setblocking(False)
    wakeup = signal.set_wakeup_fd(of_signals.fileno(), warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, _leave_to_listener) for number in _SIGNALS}
    listener = threading.Thread(target=_listen, args=(ours, received), daemon=True)
    listener.start()
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(wakeup)
        of_signals.close()
        listener.join()
        ours.close()


def _listen(ours, received):
    """Each signal arrives as one byte, its number."""
    noted = 0.0
    while number := ours.recv(1):
        if number[0] not in _SIGNALS:
            continue
        if received and time.monotonic() - noted > _SAME_SECONDS:
            os._exit(Preempted.status_of(number[0]))
        if received:
            continue
        received.append(number[0])
        noted = time.monotonic()
        print(f"{signal.Signals(number[0]).name}: stops after this step; once more: at once", file=sys.stderr)


def _leave_to_listener(_number, _frame):
    """Python's own way of telling, which waits for the main thread."""
