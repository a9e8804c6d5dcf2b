"""Result rows: what a game gave and what that depends on, kept in a file that several processes may write."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch

import bezoar
from bezoar.errors import StoreError
from bezoar.locks import alone
from bezoar.store import write_whole

Row = dict[str, Any]
"""What a game gave: address, game, result or error, seconds, provenance."""

LOCK_SECONDS = 0.05
"""How often is looked whether another process has written its row."""


NO_ROWS = "no file of result rows; move it away or name another one"


def amiss(value: object) -> str:
    """What keeps a JSON value from being a result row: address, settings of a game, and what came of it; else empty."""
    if not isinstance(value, dict):
        return "a row is a mapping"
    row = cast("Row", value)
    address, game = row.get("address"), row.get("game")
    if not isinstance(address, str) or not address:
        return "the row has no address"
    if not isinstance(game, dict) or not isinstance(cast("Row", game).get("kind"), str):
        return "the row's game has no kind"
    if "result" in row:
        return "" if isinstance(row["result"], dict) else "the row's result is no mapping"
    return "" if isinstance(row.get("error"), str) else "the row has neither a result nor an error"


class Results:
    """Rows of a sweep, one per game and keyed by its address: a file of JSON lines, rewritten as a whole.

    Several processes may add to one file; none loses what another has written.

    Args:
        path: of the file, which need not be there yet.

    Raises:
        StoreError: there can be no such file, or what is there holds no result rows or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = self._read()

    def _read(self) -> dict[str, Row]:
        try:
            self._require_file()
            if not self.path.is_file():
                return {}
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            raise StoreError(f"{self.path}: this is no text and {NO_ROWS}") from None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read ({error.strerror})") from None
        rows = [self._row(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        return {row["address"]: row for row in rows}

    def _row(self, number: int, line: str) -> Row:
        try:
            row = json.loads(line)
            wrong = amiss(row)
        except ValueError:
            row, wrong = {}, "this is no JSON"
        if wrong:
            raise StoreError(f"{self.path}, line {number}: {wrong}, so this is {NO_ROWS}")
        return row

    def _require_file(self) -> None:
        """Refuse a path that is no file and cannot become one."""
        if self.path.is_dir():
            raise StoreError(f"{self.path}: this is a folder; name a file in it, such as {self.path / 'rows.jsonl'}")
        if self.path.exists() and not self.path.is_file():  # a device would be replaced by a file
            raise StoreError(f"{self.path}: result rows are kept in a file, which this is not; name another place")
        for parent in self.path.parents:
            if parent.is_file():
                raise StoreError(f"{self.path}: {parent} is a file, so nothing can lie below it; name a folder")

    def require_writable(self) -> None:
        """See that a row can be kept, before hours are spent on one; what is there is left as it is.

        Raises:
            StoreError: the file cannot be written.
        """
        scratch = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            scratch.touch()
            scratch.unlink()
        except OSError as error:
            raise StoreError(
                f"{self.path}: no result rows can be written there ({error.strerror}); name another place"
            ) from None

    def add(self, row: Row) -> None:
        """Keep a row and write the file as a whole; a failure does not take the place of another process's result.

        Raises:
            StoreError: the file cannot be written; the old one is left as it was.
        """
        with alone(self.path.with_name(f".{self.path.name}.lock"), LOCK_SECONDS):
            self.refresh()
            if "result" in row or not self.has(row["address"]):
                self.rows[row["address"]] = row
            write_whole(self.path, "".join(json.dumps(each, sort_keys=True) + "\n" for each in self.rows.values()))

    def refresh(self) -> None:
        """See what other processes have written meanwhile."""
        self.rows |= self._read()

    def has(self, address: str) -> bool:
        """Whether a game has a result; one that failed has none, and is to be played again."""
        return "result" in self.rows.get(address, {})


def provenance(device: torch.device) -> dict[str, Any]:
    """What a number depends on besides its settings."""
    return {
        "bezoar": bezoar.__version__,
        "commit": commit_of(Path(__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }


@cache
def processor(facts: Path = Path("/proc/cpuinfo")) -> str:
    """The model of this machine's processor; empty where the system does not tell.

    Args:
        facts: where Linux says it.
    """
    with suppress(OSError):
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    return platform.processor()


def commit_of(package: Path) -> str:
    """The commit of the checkout that a package runs from, marked if the package is changed; empty outside one.

    What lies beside the package does not count: a sweep that writes its rows into the checkout changes no code.
    """
    commit = _git(package, "describe", "--always", "--abbrev=12", "--exclude=*")
    return f"{commit}-dirty" if commit and _git(package, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *words: str) -> str:
    """What git prints, or an empty text where there is no git, no checkout or no answer."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
