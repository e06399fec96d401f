"""Graceful stops on SIGTERM and SIGINT: the first signal is recorded, the second ends the process immediately."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from anchor_jax.core.errors import Preempted

# One request may arrive as several signals within this time, to a process and to its process group.
_SAME_REQUEST_SECONDS = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Callable[[], int]]:
    """Record stop signals instead of raising; yield a function that returns the first signal's number, or 0.

    A second signal, at least a second later, ends the process immediately. Both work while the main thread waits for
    the compiler or a device, when Python runs no signal handlers. Signals can only be caught in the main thread of a
    program; in other threads the function always returns 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received: list[int] = []
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, _ignore) for number in _SIGNALS}
    listener = threading.Thread(target=_listen, args=(reader, received), daemon=True)
    listener.start()
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(wakeup)
        writer.close()
        listener.join()
        reader.close()


def _listen(reader: socket.socket, received: list[int]) -> None:
    """Receive signals in a thread; each arrives as one byte, its number."""
    received_at = 0.0
    while number := reader.recv(1):
        if number[0] not in _SIGNALS:
            continue
        if received and time.monotonic() - received_at > _SAME_REQUEST_SECONDS:
            os._exit(Preempted.status_of(number[0]))
        if received:
            continue
        received.append(number[0])
        received_at = time.monotonic()
        name = signal.Signals(number[0]).name
        with contextlib.suppress(OSError, ValueError):  # Ctrl-C also ends a program that reads the output, such as tee
            print(f"{name}: stopping after this step; send it again to stop immediately", file=sys.stderr)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Leave a signal to the listener; Python would run a handler only when the main thread is free."""
