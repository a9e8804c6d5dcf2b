"""A page's rows, tables and figures as files of their own: CSV and parquet, Markdown and LaTeX, SVG and PNG."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bezoar.report.canvas import save_figure
from bezoar.report.groups import Row, flat
from bezoar.report.page import MINUS, Section, Table, shown
from bezoar.store import put_whole, write_whole

OWN = re.compile(r"\d\d-.*\.(md|tex|csv|svg|png)")
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


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown; a bar in a cell is escaped."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _slug(title: str) -> str:
    """A title as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower())[:60].strip("-") or "untitled"
