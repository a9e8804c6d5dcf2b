"""`bezoar report`: the rows of files and folders, drawn as one page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bezoar.cli.console import stdout
from bezoar.errors import SettingError
from bezoar.report.results import results_page
from bezoar.rows import Results, amiss


def report(paths: Sequence[Path], out: Path) -> None:
    """Draw result rows; a game that stands in several files counts once, and with its result if one of them has it."""
    rows: dict[str, dict[str, Any]] = {}
    for path in (each for given in paths for each in _files(given)):
        for row in _rows(path):
            if "result" not in rows.get(row["address"], {}):
                rows[row["address"]] = row
    if not rows:
        raise SettingError(f"{', '.join(map(str, paths))}: no result rows in there")
    results_page(out / "report.html", list(rows.values()))
    stdout.print(f"{len(rows)} rows: {out / 'report.html'}", highlight=False)


def _files(given: Path) -> list[Path]:
    """A file as it is, or every .jsonl below a folder."""
    if given.is_file():
        return [given]
    if not given.is_dir():
        raise SettingError(f"{given}: no such file or folder of result rows")
    found = sorted(path for path in given.rglob("*.jsonl") if path.is_file())
    is_store = (given / "format.json").is_file()
    if is_store or (not found and (given / "store" / "format.json").is_file()):
        raise SettingError(
            f"{given}: this is the store, which holds stages and no result rows; name the .jsonl that a sweep wrote"
        )
    if not found:
        single = given / "result.json"
        other = f"name {single}, if that is meant" if single.is_file() else "name the file or folder of a sweep's rows"
        raise SettingError(f"{given}: no file of result rows (.jsonl) lies in or below this folder; {other}")
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file, of a row's result.json, or of a demo's."""
    if path.suffix == ".jsonl":
        return list(Results(path).rows.values())
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        document = None
    rows: Any = document["rows"] if isinstance(document, dict) and "rows" in document else [document]
    wrong = [amiss(row) for row in rows] if isinstance(rows, list) else ["its rows are no list"]
    if any(wrong):
        why = "this is no JSON" if document is None else next(filter(None, wrong))
        raise SettingError(
            f"{path}: this holds no result rows ({why}); expected a sweep's .jsonl or a game's result.json"
        )
    return rows
