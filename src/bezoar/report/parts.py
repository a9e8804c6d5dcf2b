"""A page's rows, tables and figures as files of their own: CSV and parquet, Markdown and LaTeX, SVG and PNG."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bezoar.records import Estimate
from bezoar.report.canvas import save_figure
from bezoar.report.groups import Row, flat
from bezoar.report.page import MINUS, Cell, Percent, Section, Table, shown
from bezoar.store import put_whole, write_whole

OWN = re.compile(r"\d\d-.*\.(md|tex|csv|parquet|svg|png)")
"""Files that an earlier report wrote, which the next one in the same folder replaces."""


def write_parts(folder: Path, sections: Sequence[Section]) -> None:
    """Write every table into ``tables`` and every figure into ``figures`` below a folder, numbered as on the page.

    Raises:
        StoreError: a file cannot be written.
    """
    for name in ("tables", "figures"):
        for old in (folder / name).glob("*"):
            if OWN.fullmatch(old.name):
                old.unlink()
    for number, section in enumerate(sections, start=1):
        stem = f"{number:02d}-{_slug(section.title)}"
        if section.table is not None and section.table.rows:
            table = as_text(section.table)
            for kind, text in (
                ("md", markdown(table)),
                ("tex", table.replace(MINUS, "-", regex=True).to_latex(index=False, escape=True)),
                ("csv", table.to_csv(index=False)),
            ):
                write_whole(folder / "tables" / f"{stem}.{kind}", text)
            put_whole(folder / "tables" / f"{stem}.parquet", as_numbers(section.table).to_parquet)
        for place, picture in enumerate(section.figures, start=1):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Glyph .* missing from font")
                for kind in ("svg", "png"):
                    save_figure(picture.figure, folder / "figures" / f"{stem}-{place}.{kind}")


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """All rows, one line each, as ``rows.csv`` and, all cells as text, as ``rows.parquet``.

    Raises:
        StoreError: a file cannot be written.
    """
    table = table_of(rows)
    write_whole(folder / "rows.csv", table.to_csv(index=False))
    put_whole(folder / "rows.parquet", table.astype("string").to_parquet)


def table_of(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per row and one column per dotted field; lists, such as a curve, are JSON."""
    plain = [
        {name: json.dumps(value) if isinstance(value, list) else value for name, value in flat(row).items()}
        for row in rows
    ]
    return pd.DataFrame(plain)


def as_text(table: Table) -> pd.DataFrame:
    """A table of a page as text: every estimate with its interval and what it rests on."""
    rows = [
        [" ".join(part for part in (cell.text, cell.interval, f"({cell.n})" if cell.n else "") if part) for cell in row]
        for row in ([shown(cell) for cell in row] for row in table.rows)
    ]
    plain = [[text.replace("\N{NO-BREAK SPACE}", " ") for text in row] for row in rows]
    return pd.DataFrame(plain, columns=list(table.columns))


def as_numbers(table: Table) -> pd.DataFrame:
    """A table of a page for scripts: an estimate as four columns, shares from 0 to 1 rather than in per cent.

    A column C that holds estimates becomes ``C``, ``C low``, ``C high`` and ``C n``. What stands in it as words, such
    as the values of two seeds, is in ``C text``; a column of words and numbers is text as a whole.
    """
    columns: dict[str, pd.Series[Any]] = {}
    for place, name in enumerate(table.columns):
        for part, values in _numbers([row[place] for row in table.rows]).items():
            columns[_unused(f"{name} {part}".strip(), columns)] = values
    return pd.DataFrame(columns)


def _numbers(cells: Sequence[Cell]) -> dict[str, pd.Series[Any]]:
    """The columns that one column of a page becomes, by the end of their names; nothing stands where nothing is."""
    estimates = [_estimate(cell) for cell in cells]
    words = [cell.replace("\N{NO-BREAK SPACE}", " ") if isinstance(cell, str) else "" for cell in cells]
    if not any(estimates):
        if any(words) or not any(isinstance(cell, int | float) for cell in cells):
            return {"": pd.Series([shown(cell).text for cell in cells], dtype="string")}
        whole = all(isinstance(cell, int) or cell == "" for cell in cells)
        numbers = [None if isinstance(cell, str) else cell for cell in cells]
        return {"": pd.Series(numbers, dtype="Int64" if whole else "float64")}
    values = [
        one.value if one else float(cell) if isinstance(cell, int | float) else None
        for one, cell in zip(estimates, cells, strict=True)
    ]
    parts = {
        "": pd.Series(values, dtype="float64"),
        "low": pd.Series([one.low if one else None for one in estimates], dtype="float64"),
        "high": pd.Series([one.high if one else None for one in estimates], dtype="float64"),
        "n": pd.Series([one.n if one else None for one in estimates], dtype="Int64"),
    }
    return {**parts, "text": pd.Series(words, dtype="string")} if any(words) else parts


def _estimate(cell: Cell) -> Estimate | None:
    if isinstance(cell, Percent):
        return cell.estimate
    return cell if isinstance(cell, Estimate) else None


def _unused(name: str, columns: Mapping[str, object]) -> str:
    """A column's name, numbered where another column has it."""
    number = 1
    while (found := name if number == 1 else f"{name} ({number})") in columns:
        number += 1
    return found


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown; a bar in a cell is escaped."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _slug(title: str) -> str:
    """A title as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower())[:60].strip("-") or "untitled"
