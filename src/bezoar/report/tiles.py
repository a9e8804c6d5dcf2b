"""Figures made of small pictures: poisoned or suspicious images, and triggers that a detector reconstructed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from bezoar.errors import DataError
from bezoar.records import Inspection, as_float
from bezoar.report.canvas import INK, MUTED, VERMILLION, WIDTH, blank, shortened

ACROSS = 10
"""Pictures in one line."""

MANY_TRIGGERS = 20
"""Of more classes only the most suspicious are drawn."""


def _show(axes: Axes, image: Float[Tensor, "c h w"]) -> None:
    """One image in [0, 1], each pixel a sharp square; anything but RGB becomes a grey level."""
    pixels = image.detach().cpu().float().clamp(0, 1)
    if len(pixels) == 3:
        axes.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
    else:
        axes.imshow(pixels.mean(0).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#b5bcc6")
        spine.set_linewidth(0.8)


def _grid(rows: int, columns: int, extra: float) -> tuple[Figure, np.ndarray]:
    """A figure of square cells; `extra` inches hold titles."""
    names = 0.9
    figure = blank(WIDTH, rows * (min((WIDTH - names) / columns, 1.5) + 0.08) + extra)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _label(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, fontsize=9.5, color=INK, rotation=0, ha="right", va="center", labelpad=8)


def pictures(
    clean: UInt8[Tensor, "n c h w"],
    poisoned: UInt8[Tensor, "n c h w"],
    titles: Sequence[str] = (),
    *,
    names: tuple[str, str] = ("clean", "poisoned"),
) -> Figure:
    """Images above what became of them, and the difference, amplified so that its largest value is full scale.

    Args:
        clean: images; at most the first ten are drawn.
        poisoned: the same ones afterwards.
        titles: one per image, or none.
        names: of the first two lines.

    Raises:
        DataError: the two do not have one shape, or there are no images.
    """
    if clean.shape != poisoned.shape or not len(clean):
        raise DataError(f"pictures of shapes {tuple(clean.shape)} and {tuple(poisoned.shape)} cannot be compared")
    return picture_lines({names[0]: clean, names[1]: poisoned}, titles)


def picture_lines(lines: Mapping[str, UInt8[Tensor, "n c h w"]], titles: Sequence[str] = ()) -> Figure:
    """The same images in several states, one line each, and the difference between the first line and the last.

    The difference is amplified so that its largest value is full scale; grey is no change.

    Args:
        lines: name of each line -> images; at most the first ten are drawn.
        titles: one per image, or none.
    """
    shown = {name: as_float(images[:ACROSS]) for name, images in lines.items()}
    first, *_, last = shown.values()
    largest = float((last - first).abs().max())
    gain = 1 / largest if largest else 1.0
    shown[f"difference\n\N{MULTIPLICATION SIGN} {gain:.3g}"] = 0.5 + (last - first) * gain / 2
    figure, cells = _grid(len(shown), max(len(first), 5), 0.35 if titles else 0.1)
    for row, (name, images) in enumerate(shown.items()):
        for column, axes in enumerate(cells[row]):
            if column >= len(images):
                axes.set_axis_off()
                continue
            _show(axes, images[column])
            if row == 0 and column < len(titles):
                axes.set_title(shortened(titles[column], 12), fontsize=9, color=INK)
        _label(cells[row][0], name)
    return figure


def ranked(images: UInt8[Tensor, "n c h w"], titles: Sequence[str], below: Sequence[str]) -> Figure:
    """Images line by line, each with a title above and a few words below; all of them are drawn.

    Raises:
        DataError: there are no images.
    """
    if not len(images):
        raise DataError("there are no images to show")
    figure, cells = _grid(-(-len(images) // ACROSS), ACROSS, 0.35 * -(-len(images) // ACROSS))
    for place, axes in enumerate(cells.flat):
        if place >= len(images):
            axes.set_axis_off()
            continue
        _show(axes, as_float(images[place]))
        axes.set_title(shortened(titles[place], 12), fontsize=9, color=INK)
        axes.set_xlabel(below[place], fontsize=8, color=MUTED)
    return figure


def triggers(inspection: Inspection, classes: Sequence[str]) -> Figure:
    """The reconstructed trigger of every class, the suspected class framed.

    With masks, the upper line shows the pattern where the mask lets it through, on grey, and the
    lower the mask, white where it replaces the image. Without, the trigger is added to images: grey is no
    change, and each is rescaled to its own largest value, printed below. Thin masks
    (`Inspection.thin`) are rescaled likewise.

    Raises:
        DataError: the inspection has no triggers.
    """
    if inspection.triggers is None:
        raise DataError("this detector reconstructs no triggers")
    shown = inspection.scores.argsort(descending=True, stable=True)[:MANY_TRIGGERS].sort().values.tolist()
    lines = -(-len(shown) // ACROSS)
    each = 1 if inspection.masks is None else 2
    figure, cells = _grid(lines * each, min(ACROSS, max(len(shown), 5)), 0.55 * lines)
    for axes in cells.flat:
        axes.set_axis_off()
    for place, label in enumerate(shown):
        line, column = divmod(place, ACROSS)
        column_cells: list[Axes] = [cells[line * each + part][column] for part in range(each)]
        for axes, tile in zip(column_cells, _tiles(inspection, label), strict=True):
            axes.set_axis_on()
            _show(axes, tile)
            if label == inspection.suspect:
                # outside the picture, whose outermost pixels may be the trigger
                around = Rectangle(
                    (-0.05, -0.05), 1.1, 1.1, transform=axes.transAxes, fill=False, edgecolor=VERMILLION, linewidth=3
                )
                around.set_clip_on(False)
                axes.add_patch(around)
        suspected = label == inspection.suspect
        column_cells[0].set_title(
            shortened(classes[int(label)], 10),
            fontsize=9.5,
            color=VERMILLION if suspected else INK,
            fontweight="bold" if suspected else "normal",
            pad=8,
        )
        column_cells[-1].set_xlabel(_size(inspection, label), fontsize=8.5, color=MUTED, labelpad=7)
        if column == 0 and inspection.masks is not None:
            _label(column_cells[0], "trigger")
            _label(column_cells[1], "mask")
    return figure


def _tiles(inspection: Inspection, label: int) -> list[Float[Tensor, "c h w"]]:
    """The pictures of one class's trigger, in [0, 1]."""
    assert inspection.triggers is not None
    trigger = inspection.triggers[label].detach().cpu().float()
    if inspection.masks is None:
        largest = float(trigger.abs().max())
        return [0.5 + trigger / (2 * largest if largest else 1.0)]
    mask = inspection.masks[label].detach().cpu().float()
    shown = mask / mask.max().clamp_min(1e-6) if inspection.thin else mask  # a thin one would be grey on grey
    return [torch.lerp(torch.full_like(trigger, 0.5), trigger, shown.expand_as(trigger)), shown]


def _size(inspection: Inspection, label: int) -> str:
    """How large the trigger of a class is: its norm where the detector gives one, else its largest value."""
    norm = inspection.evidence.get("norm")
    if norm is not None:
        return f"norm {float(norm[label]):.3g}"
    if inspection.masks is not None:
        mask = inspection.masks[label]
        return f"opacity {float(mask.max()):.2g}" if inspection.thin else f"norm {float(mask.sum()):.3g}"
    assert inspection.triggers is not None
    return f"± {float(inspection.triggers[label].abs().max()):.2g}"
