"""Keeping other processes out, wherever the file system knows locks."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock


@contextmanager
def alone(path: Path, poll_interval: float) -> Generator[None]:
    """Wait until no other process holds this lock, and hold it; the lock of a process that is killed goes with it.

    Where locks do not work, or the folder cannot be written, nobody is kept out.

    Args:
        path: of the lock's own file, which is there only meanwhile.
        poll_interval: seconds between two looks.
    """
    # no soft lock, which would outlive a process that is killed
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(poll_interval=poll_interval)
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # some systems do not delete what is open
            path.unlink()
        lock.release()
