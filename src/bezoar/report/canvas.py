"""Colours, names and frames that all figures share."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bezoar.errors import SettingError
from bezoar.store import write_whole

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#B5579A", "#56B4E9"
INK, MUTED, FAINT = "#22272e", "#667080", "#d9dee5"
LINES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)

WIDTH = 8.4
"""Inches of a chart that takes the whole page; text is 9 to 10 points."""


def shortened(text: str, length: int = 14) -> str:
    """A name for a figure: short, on one line, with its dollar signs meant as such."""
    line = " ".join(text.split())
    line = line if len(line) <= length else line[: length - 1] + "…"
    return line.replace("$", r"\$")


def blank(width: float, height: float) -> Figure:
    """An empty white figure that arranges its axes by itself; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def dress(axes: Axes, *, across: str, up: str, title: str = "") -> None:
    """Axis titles and a quiet frame."""
    axes.set_facecolor("white")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=9, labelcolor=INK)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(across, fontsize=9.5, color=INK)
    axes.set_ylabel(up, fontsize=9.5, color=INK)
    if title:
        axes.set_title(title, fontsize=10.5, color=INK, loc="left", fontweight="bold")


def in_percent(axes: Axes, which: str = "y") -> None:
    """Ticks of a share as per cent."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %".replace("-", "\N{MINUS SIGN}")))


def legend(figure: Figure, axes: Axes, columns: int) -> None:
    """The axes' legend below the whole figure, in at most four columns."""
    if columns:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(columns, 4),
            frameon=False,
            fontsize=9.5,
            labelcolor=INK,
        )


def widen(axes: Axes, least: float) -> None:
    """At least that much of the vertical axis, so that noise does not fill the panel; room for a note below."""
    low, high = axes.get_ylim()
    gap = max(0.0, least - (high - low))
    axes.set_ylim(low - 0.7 * gap - 0.08 * (high - low), min(1.005, high + 0.3 * gap))


_METADATA = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def picture_kind(path: Path) -> str:
    """The format that a file's name asks for.

    Raises:
        SettingError: it does not end in .png, .svg or .pdf.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _METADATA:
        raise SettingError(f"{path}: pictures are written as .png, .svg or .pdf; name such a file")
    return kind


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that its name asks for; the same figure gives the same bytes.

    Raises:
        SettingError: the name asks for no known format.
        StoreError: the file cannot be written.
    """
    kind, file = picture_kind(path), BytesIO()
    figure.savefig(file, format=kind, dpi=130, metadata=_METADATA[kind])
    write_whole(path, file.getvalue())
