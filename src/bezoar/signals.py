"""Interruptions that wait: some code takes what the handler of a signal raises for an error of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def put_off() -> Generator[None]:
    """Ctrl-C and SIGTERM come afterwards.

    Where tensors are made of files, torch and safetensors ask Python for lengths, and report whatever it raises as a
    wrong shape or a damaged file: the interruption would be lost, and a sound entry thrown away.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread alone
        yield
        return
    came: list[int] = []
    before = {one: handler for one in STOPS if (handler := signal.getsignal(one)) is not None}
    for one in before:
        signal.signal(one, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for number in came:
            signal.raise_signal(number)
