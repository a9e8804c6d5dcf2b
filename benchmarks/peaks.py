"""By how much the memory of this process grows while something runs; Linux only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def grown(work: Callable[[], object]) -> int:
    """Bytes between what is resident before and the peak meanwhile; -1 where the system does not say."""
    try:
        RESET.write_text("5")  # the peak begins anew
        before = _read("VmRSS")
    except OSError:
        work()
        return -1
    work()
    return _read("VmHWM") - before


def _read(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])
