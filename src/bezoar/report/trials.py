"""What a search tried, and what came of it."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bezoar.report.canvas import BLUE, MUTED, VERMILLION, WIDTH, blank, dress, in_percent, legend
from bezoar.tuning import Search


def trial_chart(found: Search) -> Figure:
    """One panel a searched setting: what each trial left of the defender's own backdoor, within the budget."""
    names = list(found.winner.settings)
    figure = blank(max(WIDTH * len(names) / 3, WIDTH / 2), 3.0)
    panels: list[Axes] = list(figure.subplots(1, len(names), squeeze=False, sharey=True).flat)
    whole = [one for one in found.trials if one.folds == found.folds]
    dropped = [one for one in found.trials if one.folds < found.folds]
    for name, axes in zip(names, panels, strict=True):
        for trials, colour, marker, label in (
            (dropped, MUTED, "x", "dropped early"),
            (whole, BLUE, "o", "tried on all folds"),
            ([found.winner], VERMILLION, "*", "winner"),
        ):
            places = [one.settings[name] for one in trials]
            size = 11 if marker == "*" else 5
            heights = [one.best.success for one in trials]
            axes.plot(places, heights, color=colour, linestyle="", marker=marker, markersize=size, label=label)
        dress(axes, across=name.replace("_", " "), up="", title="")
        axes.set_xscale("log")
        axes.set_ylim(-0.04, 1.04)
        in_percent(axes)
    panels[0].set_ylabel("own success left")
    legend(figure, panels[0], 3)
    return figure
