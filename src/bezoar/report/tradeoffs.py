"""What repairs leave of an attack against what they cost: one mark per robustness row and reading."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bezoar.games.repairing import Point
from bezoar.report.canvas import FAINT, INK, LINES, WIDTH, blank, dress, in_percent, legend, shortened
from bezoar.report.groups import Row, kind_of

MARKERS = {"oracle": "^", "final": "s", "blind": "o"}
BUDGET = (0, (1, 2))

MANY_GROUPS = 8
"""More groups cannot be told apart by colour, so each repairer has a panel and each attack a colour; of more attacks
than that the legend is left out, and the table alone has their names."""


def trade_off(groups: Mapping[str, Sequence[Row]]) -> Figure:
    """Attack success left against clean accuracy lost, one mark per robustness row and reading.

    Args:
        groups: name -> rows of `bezoar.sweep.play` whose game is robustness.
    """
    if len(groups) > MANY_GROUPS:
        return _panels([row for rows in groups.values() for row in rows])
    figure = blank(WIDTH, 4.2)
    axes: Axes = figure.subplots()
    for number, (name, rows) in enumerate(groups.items()):
        colour = LINES[number % len(LINES)]
        axes.plot([], [], color=colour, linewidth=5, label=shortened(name, 60))
        _marks(axes, rows, colour, 7.0)
    _frame(axes, [row for rows in groups.values() for row in rows])
    dress(axes, across="clean accuracy lost (dotted: the budget)", up="attack success left")
    axes.grid(axis="x", color=FAINT, linewidth=0.7)
    legend(figure, axes, 1 if len(groups) > 3 else 2)
    keys = _keys()
    axes.legend(handles=keys, loc="upper right", fontsize=9, labelcolor=INK, framealpha=0.9, edgecolor=FAINT)
    return figure


def _panels(rows: Sequence[Row]) -> Figure:
    """The same with a panel for each repairer and a colour for each attack, on equal axes."""
    repairers: dict[str, list[Row]] = {}
    for row in rows:
        repairers.setdefault(kind_of(row["game"]["repairer"]), []).append(row)
    attacks = list(dict.fromkeys(kind_of(row["game"]["attack"]) for row in rows))
    colours = {attack: LINES[place % len(LINES)] for place, attack in enumerate(attacks)}
    across = min(3, len(repairers))
    down = math.ceil(len(repairers) / across)
    figure = blank(WIDTH, 1.1 + 2.5 * down)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    every: list[Axes] = list(grid.flat)
    for place, (axes, (repairer, few)) in enumerate(zip(every, repairers.items(), strict=False)):
        for attack in attacks:
            _marks(axes, [row for row in few if kind_of(row["game"]["attack"]) == attack], colours[attack], 5.0)
        _frame(axes, few)
        lowest = place + across >= len(repairers)
        dress(axes, across="clean accuracy lost" if lowest else "", up="" if place % across else "attack success left")
        axes.set_title(shortened(repairer.replace("_", " "), 30), fontsize=10, color=INK, loc="left")
        axes.grid(axis="x", color=FAINT, linewidth=0.7)
        axes.tick_params(labelbottom=lowest)
    for axes in every[len(repairers) :]:
        axes.remove()
    named = [
        Line2D([], [], color=colours[attack], linewidth=5, label=shortened(attack.replace("_", " "), 30))
        for attack in attacks
    ]
    dotted = Line2D([], [], color=INK, linewidth=1, linestyle=BUDGET, label="the budget")
    keys = [*(named if len(attacks) <= MANY_GROUPS else []), *_keys(), dotted]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, frameon=False, fontsize=9.5, labelcolor=INK)
    return figure


def _marks(axes: Axes, rows: Sequence[Row], colour: str, size: float) -> None:
    for reading, marker in MARKERS.items():
        points = [Point.from_json(row["result"]["repaired"][reading]) for row in rows]
        axes.plot(
            [point.lost.value for point in points],
            [point.attack_success.value for point in points],
            linestyle="",
            marker=marker,
            markersize=size,
            markerfacecolor=colour if reading == "blind" else "white",
            markeredgecolor=colour,
            markeredgewidth=1.4,
            alpha=0.9,
        )


def _frame(axes: Axes, rows: Sequence[Row]) -> None:
    """The budgets, and axes in per cent."""
    for budget in {float(row["game"]["budget"]) for row in rows}:
        axes.axvline(budget, color=INK, linewidth=1, linestyle=BUDGET)
    axes.set_ylim(-0.04, 1.04)
    in_percent(axes)
    in_percent(axes, "x")


def _keys() -> list[Line2D]:
    """What the readings' markers mean."""
    return [
        Line2D(
            [],
            [],
            linestyle="",
            marker=marker,
            markerfacecolor=INK if name == "blind" else "white",
            markeredgecolor=INK,
            label=name,
        )
        for name, marker in MARKERS.items()
    ]
