"""What all commands share: the terminal, progress bars, the device, and where data and results lie."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bezoar.component import Component, members
from bezoar.errors import SettingError, known
from bezoar.games.referee import Referee
from bezoar.lab import Lab
from bezoar.store import Store, write_whole

Item = TypeVar("Item")

stdout = Console()
stderr = Console(stderr=True)


class Bars:
    """Progress bars with the time left, on stderr; they vanish when done."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=stderr,
        )

    @contextmanager
    def shown(self, *above: RenderableType) -> Generator[None]:
        """Draw the bars, with something above them, until the outermost of these contexts ends.

        Nothing is drawn where stderr is no terminal.
        """
        if self._live is not None or not stderr.is_terminal:
            yield
            return
        self._live = Live(Group(*above, self._bars), console=stderr, transient=True)
        try:
            with self._live:
                yield
        finally:
            self._live = None

    def track(self, items: Iterable[Item], name: str, total: int) -> Iterator[Item]:
        """The same items, counted as they pass."""
        with self.shown():
            task = self._bars.add_task(name, total=total)
            try:
                for item in items:
                    yield item
                    self._bars.advance(task)
            finally:
                self._bars.remove_task(task)


def say(text: str) -> None:
    """One line to the person at the terminal, on stderr, so that stdout stays clean."""
    stderr.print(text, highlight=False, markup=False, soft_wrap=not stderr.is_terminal)


def print_json(document: Any) -> None:
    """One JSON document on stdout; numbers that JSON does not have (an unbounded interval) become null."""
    sys.stdout.write(json.dumps(finite(document), indent=2) + "\n")


def finite(value: Any) -> Any:
    """The same value with every infinity and NaN replaced by None."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [finite(inner) for inner in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table that folds its cells in a narrow terminal."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(Text, row))  # a cell may hold brackets, which are markup to rich
    stdout.print(table)


def in_bytes(count: int) -> str:
    """A size for the eye: 1.2 MB."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def in_time(seconds: float) -> str:
    """A duration for the eye: 2 h 05 min, 3 min 20 s, 4.2 s."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def find_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes CUDA, then Apple's, then the CPU.

    Raises:
        SettingError: there is no such device here.
    """
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise SettingError(f"--device: {name!r} cannot be used on this machine; cpu always can, auto chooses") from None
    return device


def data_folders(given: list[Path]) -> tuple[Path, ...]:
    """``--data``, then the folders of ``BEZOAR_DATA``.

    Raises:
        SettingError: a folder given by hand does not exist.
    """
    for folder in given:
        if not folder.is_dir():
            raise SettingError(f"--data: there is no folder {str(folder)!r}")
    listed = os.environ.get("BEZOAR_DATA", "")
    return (*given, *(Path(entry) for entry in listed.split(os.pathsep) if entry))


def make_referee(device: str, data: list[Path], bars: Bars | None = None) -> Referee:
    """A referee with the user's store, device and data folders, who shows progress."""
    return Referee(Store(), Lab(find_device(device), bars or Bars()), data_folders(data))


def find_component(family: str, name: str) -> type[Component]:
    """The class registered under a name in one family."""
    found = members(family)
    if name not in found:
        raise SettingError(f"unknown name {name!r} among the {family}; {known(found, name)}")
    return found[name]


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document as a whole, or leave the old file as it was.

    Raises:
        StoreError: the folder cannot be written.
    """
    write_whole(path, json.dumps(finite(document), indent=2) + "\n")
