"""What the benchmarks share: interleaved timing, rows of results, and a description of the machine."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """How long one side took in each repeat, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The usual time."""
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        """The time with the least interference from whatever else runs on the machine."""
        return min(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.1f} s (min {self.best:.1f})"


@dataclass(frozen=True)
class Row:
    """One comparison as it is printed, and the numbers behind it."""

    what: str
    bezoar: str
    against: str
    ratio: str = ""
    aim: str = ""
    raw: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Report:
    """What one benchmark measured: its settings (data, network, batch, workers, ...) and its rows."""

    settings: dict[str, Any]
    rows: list[Row]


def interleave(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Timing]:
    """Run all sides in turn, A B C A B C ..., so that a slow minute of the machine hits every side.

    Args:
        sides: name -> a function that does the work once and returns the seconds it took.
        repeats: how many rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats):
        for name, side in sides.items():
            sys.stderr.write(f"  round {number + 1} of {repeats}: {name} ... ")
            sys.stderr.flush()
            seconds[name].append(side())
            sys.stderr.write(f"{seconds[name][-1]:.2f} s\n")
    return {name: Timing(tuple(times)) for name, times in seconds.items()}


def seconds_of(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Wall time of one call, with everything it queued on a GPU finished."""
    started = time.perf_counter()
    work()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def ratio(bezoar: Timing, against: Timing) -> str:
    """How many times faster bezoar is: at the median, and at the best of either side."""
    return f"{against.median / bezoar.median:.2f}x (best {against.best / bezoar.best:.2f}x)"


def raw(bezoar: Timing, against: Timing) -> dict[str, Any]:
    """All times and both ratios, for the results file."""
    return {
        "bezoar_seconds": [round(second, 4) for second in bezoar.seconds],
        "against_seconds": [round(second, 4) for second in against.seconds],
        "ratio_of_medians": round(against.median / bezoar.median, 3),
        "ratio_of_bests": round(against.best / bezoar.best, 3),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages whose speed matters here."""
    found = {"python": platform.python_version()}
    for name in ("bezoar", "torch", "torchvision", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine_label() -> str:
    """Processor, threads and accelerator, without the machine's name: ``x86_64-2threads-cpu``."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    accelerator = "-".join(name.lower().split())
    return f"{platform.machine()}-{torch.get_num_threads()}threads-{accelerator}"
