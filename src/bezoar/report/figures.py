"""Charts of results. Each function returns a Figure of its own: no pyplot, nothing global, white ground.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; whatever a colour says, a marker
or a line style says too. Class names are the user's and may be long or hold a dollar sign.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bezoar.games.repairing import Look, Point
from bezoar.records import Estimate
from bezoar.report.canvas import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    LINES,
    MUTED,
    VERMILLION,
    WIDTH,
    blank,
    dress,
    in_percent,
    legend,
    shortened,
    widen,
)

DASHES = ("-", "--", "-.", ":")

MANY_LINES = 3
"""With more lines the interval bands hide each other and are left out."""

MANY_CLASSES = 24
"""Of more classes only the most suspicious are drawn."""


def repair_curves(curves: Mapping[str, Sequence[Point]], budget: float) -> Figure:
    """Attack success and clean accuracy against the step of the repair, one line per repairer.

    Args:
        curves: name of the repairer -> its readings; the first is the suspect's.
        budget: accuracy that may be lost, absolute; marked below the suspect's accuracy.
    """
    figure = blank(WIDTH, 3.5)
    attack, clean = list[Axes](figure.subplots(1, 2))
    for number, (name, points) in enumerate(curves.items()):
        for axes, values in (
            (attack, [point.attack_success for point in points]),
            (clean, [point.clean_accuracy for point in points]),
        ):
            steps = [point.step for point in points]
            _line(axes, steps, values, name=name, number=number, band=len(curves) <= MANY_LINES)
    for start in sorted({points[0].clean_accuracy.value for points in curves.values() if points}):
        clean.axhline(start - budget, color=INK, linewidth=1, linestyle=(0, (1, 2)))
    # one entry for all such lines, in the legend, where it covers no curve
    attack.plot([], [], color=INK, linewidth=1, linestyle=(0, (1, 2)), label=f"budget: {100 * budget:.3g} points lost")
    dress(attack, across="step of the repair", up="", title="Attack success: lower is better")
    dress(clean, across="step of the repair", up="", title="Clean accuracy: should stay")
    attack.set_ylim(-0.03, 1.03)
    widen(clean, 0.12)
    for axes in (attack, clean):
        in_percent(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, steps=[1, 2, 5, 10]))
    legend(figure, attack, len(curves) + 1)
    return figure


def _line(
    axes: Axes, steps: Sequence[int], values: Sequence[Estimate], *, name: str, number: int, band: bool = True
) -> None:
    colour = LINES[number % len(LINES)]
    axes.plot(
        steps,
        [value.value for value in values],
        label=shortened(name, 40),
        color=colour,
        linestyle=DASHES[number % len(DASHES)],
        marker="osD^vP"[number % 6],
        markersize=3.5,
        linewidth=1.7,
    )
    if band:
        low, high = [value.low for value in values], [value.high for value in values]
        axes.fill_between(steps, low, high, color=colour, alpha=0.16, linewidth=0)


def class_scores(models: Mapping[str, Float[Tensor, "k"]], classes: Sequence[str], highlighted: int | None) -> Figure:
    """The detector's score of every class, one group of bars per class.

    Args:
        models: name of the model -> its scores, higher is more suspicious; the first is the suspect.
        classes: their names, in label order.
        highlighted: the class that is set off, if any.
    """
    scores = {name: values.detach().cpu().double().numpy() for name, values in models.items()}
    first = next(iter(scores.values()))
    shown = np.sort(np.argsort(-first, kind="stable")[:MANY_CLASSES])
    finite = np.concatenate([values[np.isfinite(values)] for values in scores.values()] or [np.zeros(1)])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    # the unit is the detector's own and may be a logarithm, so bars start a little below the lowest score
    base = 0.0 if low >= 0 else low - 0.06 * max(high - low, 0.1)
    figure = blank(WIDTH, 3.2)
    axes: Axes = figure.subplots()
    width = 0.78 / len(scores)
    for number, (name, values) in enumerate(scores.items()):
        places = np.arange(len(shown)) + (number - (len(scores) - 1) / 2) * width
        heights = np.where(np.isfinite(values[shown]), values[shown] - base, np.nan)
        colour = (VERMILLION, BLUE, GREEN)[number % 3]
        alone = [VERMILLION if row == highlighted else BLUE for row in shown]
        hatch = ("", "///", "...")[number % 3]
        axes.bar(
            places,
            heights,
            width * 0.92,
            bottom=base,
            label=shortened(name, 40),
            color=colour if len(scores) > 1 else alone,
            hatch=hatch,
            edgecolor="white",
        )
    dress(axes, across="", up="score (higher = more suspicious)")
    crowded = len(shown) > 10 or any(len(classes[int(row)]) > 8 for row in shown)
    axes.set_xticks(range(len(shown)), [shortened(classes[int(row)]) for row in shown], rotation=40 if crowded else 0)
    for label, row in zip(axes.get_xticklabels(), shown, strict=True):
        label.set_horizontalalignment("right" if crowded else "center")
        if row == highlighted:
            label.set_fontweight("bold")
            label.set_color(VERMILLION)
    if len(shown) < len(classes):
        axes.set_title(
            f"the {len(shown)} most suspicious of {len(classes)} classes", fontsize=9, color=MUTED, loc="left"
        )
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    legend(figure, axes, len(scores) if len(scores) > 1 else 0)
    return figure


@dataclass(frozen=True)
class Dot:
    """One model in a strip plot: its score, and whether the detector named the class that was attacked."""

    score: float
    right: bool


def score_strips(poisoned: Sequence[Dot], clean: Sequence[Dot]) -> Figure:
    """Every model's score on one axis: poisoned above, clean below; hollow where the wrong class was named."""
    figure = blank(WIDTH, 2.1)
    axes: Axes = figure.subplots()
    for level, (dots, colour) in enumerate(((clean, BLUE), (poisoned, VERMILLION))):
        for place, dot in enumerate(sorted(dots, key=lambda one: one.score)):
            if not math.isfinite(dot.score):
                continue
            shift = 0.12 * ((place % 3) - 1)  # neighbours by score do not cover each other
            face = colour if dot.right else "white"
            marker = "o" if level else "D"
            axes.plot(
                [dot.score],
                [level + shift],
                marker=marker,
                color=colour,
                markerfacecolor=face,
                markersize=7,
                alpha=0.85,
            )
    dress(axes, across="score of the model (higher = more suspicious)", up="")
    axes.grid(axis="x", color=FAINT, linewidth=0.7)
    axes.set_yticks([0, 1], [f"{len(clean)} clean", f"{len(poisoned)} poisoned"])
    axes.set_ylim(-0.5, 1.5)
    return figure


def held_out(looks: Sequence[Look], kept: int) -> Figure:
    """Cross-validated accuracy against the step: filled where accepted, a ring around the step that was chosen."""
    figure = blank(WIDTH, 3.2)
    axes: Axes = figure.subplots()
    steps = [look.step for look in looks]
    _line(axes, steps, [look.accuracy for look in looks], name="accuracy on held-out folds", number=0)
    axes.lines[-1].set_marker("")
    for accepted, name in ((True, "accepted"), (False, "refused")):
        chosen = [look for look in looks if look.accepted is accepted]
        places = [look.step for look in chosen], [look.accuracy.value for look in chosen]
        face = BLUE if accepted else "white"
        axes.plot(*places, linestyle="", marker="o", color=BLUE, markerfacecolor=face, markersize=6, label=name)
    ring = [look for look in looks if look.step == kept]
    if ring:
        axes.plot(
            [kept],
            [ring[0].accuracy.value],
            linestyle="",
            marker="o",
            markersize=14,
            markerfacecolor="none",
            markeredgecolor=VERMILLION,
            markeredgewidth=2,
            label="chosen",
        )
    if looks:
        before = looks[0].accuracy.value + looks[0].lost.value
        axes.axhline(before, color=INK, linewidth=1, linestyle=(0, (1, 2)), label="before the repair")
    dress(axes, across="step of the repair", up="")
    widen(axes, 0.12)
    in_percent(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    legend(figure, axes, 5)
    return figure
