"""One result, one HTML file: verdict on top, then sections. It asks nothing of the network and needs no other file."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from bezoar.records import Estimate
from bezoar.store import write_whole

Tone = Literal["bad", "good", "open"]
"""What a verdict means to its reader: something is wrong, nothing is, or nobody knows."""

MINUS = "\N{MINUS SIGN}"
DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Percent:
    """A table cell that shows an estimate in per cent; with `bar`, as a length from 0 to 100 too."""

    estimate: Estimate
    bar: bool = True


Cell = str | int | float | Estimate | Percent
"""An estimate is shown with its interval and its n."""


@dataclass(frozen=True)
class Table:
    """Columns by name and rows of cells; `highlight` numbers the rows that are set off."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    highlight: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A figure and the sentences below it, which also stand in for it where it cannot be seen."""

    figure: Figure
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a page: text (an empty line parts paragraphs), table, figures. A folded one opens at a click."""

    title: str
    text: str = ""
    table: Table | None = None
    figures: Sequence[Picture] = ()
    folded: bool = False


def percent(value: float) -> str:
    """A share as text: 98.9 %, which no line break parts."""
    return f"{_signed(100 * value, '.1f')}\N{NO-BREAK SPACE}%"


def number(value: float) -> str:
    """A number as text: three digits that count."""
    return _signed(value, ",.0f" if 1000 <= abs(value) < 1e6 else ".3g")


def _signed(value: float, form: str) -> str:
    text = format(value, form)
    text = text.removeprefix("-") if not text.strip("-0.") else text
    return text.replace("-", MINUS).replace("inf", "∞").replace("nan", "?")


@dataclass(frozen=True)
class Shown:
    """A cell ready for the template; bar ends are in per cent of its width."""

    text: str
    interval: str = ""
    n: str = ""
    numeric: bool = False
    bar: Mapping[str, float] | None = None


def shown(cell: Cell) -> Shown:
    """A cell as text, its interval and its n apart."""
    if isinstance(cell, str):
        return Shown(cell)
    if isinstance(cell, Percent):
        one = cell.estimate
        ends = f"[{_signed(100 * one.low, '.1f')}, {_signed(100 * one.high, '.1f')}]"
        bar = _bar(one) if cell.bar and math.isfinite(one.value) else None
        return Shown(percent(one.value), ends, _count(one), numeric=True, bar=bar)
    if isinstance(cell, Estimate):
        ends = f"[{_signed(cell.low, '.3f')}, {_signed(cell.high, '.3f')}]"
        return Shown(_signed(cell.value, ".3f"), ends, _count(cell), numeric=True)
    return Shown(str(cell) if isinstance(cell, int) else number(cell), numeric=True)


def _count(estimate: Estimate) -> str:
    return f"n = {estimate.n:,} {estimate.unit}"


def _bar(one: Estimate) -> dict[str, float]:
    low, value, high = (round(100 * min(1.0, max(0.0, end)), 1) for end in (one.low, one.value, one.high))
    return {"value": value, "low": low, "width": round(high - low, 1)}


@dataclass(frozen=True)
class _Column:
    """A column's head; `n` is what most of its cells rest on, so that only the others say theirs."""

    name: str
    n: str
    numeric: bool


def _columns(table: Table, rows: Sequence[Sequence[Shown]]) -> list[_Column]:
    columns: list[_Column] = []
    for place, name in enumerate(table.columns):
        cells = [row[place] for row in rows]
        counts = Counter(cell.n for cell in cells if cell.n).most_common(1)
        numeric = any(cell.numeric for cell in cells)
        columns.append(_Column(name, counts[0][0] if counts else "", numeric))
    return columns


def _data_uri(figure: Figure) -> Markup:
    """A figure as an address that holds it whole: vectors for charts, pixels where it shows images."""
    raster = any(axes.images for axes in figure.axes)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # a class name may hold signs that the font lacks: they are drawn as boxes, and the table has the name
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png" if raster else "svg", dpi=DOTS_PER_INCH if raster else "figure")
    content = base64.b64encode(buffer.getvalue()).decode()
    return Markup(f"data:image/{'png' if raster else 'svg+xml'};base64,{content}")


def _part(section: Section) -> dict[str, object]:
    """A section as the template takes it."""
    table = None
    if section.table is not None:
        rows = [[shown(cell) for cell in row] for row in section.table.rows]
        table = {"columns": _columns(section.table, rows), "rows": rows, "highlight": section.table.highlight}
    return {
        "title": section.title,
        "paragraphs": [text for text in section.text.split("\n\n") if text.strip()],
        "table": table,
        "figures": [{"source": _data_uri(one.figure), "caption": one.caption} for one in section.figures],
        "folded": section.folded,
    }


def write_page(
    path: Path,
    *,
    title: str,
    verdict: str,
    tone: Tone,
    sections: Sequence[Section],
    provenance: Mapping[str, object],
    summary: str = "",
) -> None:
    """Write a page as one file that needs nothing else.

    Args:
        path: the HTML file; an old one is replaced only by a complete new one.
        title: what this is a report of.
        verdict: the answer, in one sentence.
        tone: the colour and the sign of the verdict.
        sections: in reading order.
        provenance: what the numbers depend on besides the settings, as name -> value.
        summary: what the verdict rests on; an empty line parts paragraphs.

    Raises:
        StoreError: the file cannot be written; the old one is left as it was.
    """
    here = files("bezoar.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8"))
    text = page.render(
        style=Markup(here.joinpath("page.css").read_text(encoding="utf-8")),
        title=title,
        verdict=verdict,
        summary=[text for text in summary.split("\n\n") if text.strip()],
        tone=tone,
        sign={"bad": "!", "good": "✓", "open": "?"}[tone],
        sections=[_part(section) for section in sections],
        provenance={name: str(value) for name, value in provenance.items() if str(value)},
    )
    write_whole(path, text)
