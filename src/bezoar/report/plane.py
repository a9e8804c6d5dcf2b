"""Robustness against detectability, the plane of "Pick your Poison" (Figure 7): an attacker wants to survive unseen."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bezoar.records import Estimate
from bezoar.report.canvas import INK, LINES, MUTED, WIDTH, blank, dress, in_percent, legend
from bezoar.report.groups import READINGS, Row, over_seeds
from bezoar.report.page import Cell, Percent, Picture, Section, Table
from bezoar.report.places import Place, area_at, front, planes

SUCCESS_LEVEL = 0.5
"""At this attack success on undefended models the detectability of attacks is compared."""


def plane(places: Sequence[Place], reading: str) -> Figure:
    """Every place with its intervals; the strengths of one attack are joined, and so is each threat model's front."""
    figure = blank(WIDTH, 4.6)
    axes: Axes = figure.subplots()
    for number, attack in enumerate(dict.fromkeys(one.attack for one in places)):
        few = [one for one in places if one.attack == attack]
        across, up = [one.left[reading] for one in few], [one.area for one in few]
        colour = LINES[number % len(LINES)]
        # two seeds have no interval worth drawing: both stand beside their mean
        sure = [
            whole if len(one.seeds[reading]) != 2 else _point(whole) for one, whole in zip(few, across, strict=True)
        ]
        axes.errorbar(
            [one.value for one in across],
            [one.value for one in up],
            xerr=lengths(sure),
            yerr=lengths(up),
            color=colour,
            elinewidth=0.7,
            linewidth=1.2,
            marker="D" if few[0].code else "o",
            markersize=6,
            label=attack.replace("_", " "),
        )
        for one in few:
            both = [seed.value for seed in one.seeds[reading]] if len(one.seeds[reading]) == 2 else []
            axes.plot(both, [one.area.value] * len(both), linestyle="", marker="|", markersize=9, color=colour)
        for one in few:
            where = (one.left[reading].value, one.area.value)
            aside = (4, -12 if one.code else 4)  # of two places that coincide one may be of either kind
            axes.annotate(f"{one.dose:g}", where, aside, textcoords="offset points", fontsize=8, color=MUTED)
    for code, dash in ((False, (0, (4, 2))), (True, (0, (1, 1.5)))):
        best = front([one for one in places if one.code is code], reading)
        if best:
            line = [one.left[reading].value for one in best], [one.area.value for one in best]
            name = f"front of {'code' if code else 'data'} poisoning"
            axes.plot(*line, color=INK, linewidth=1, linestyle=dash, drawstyle="steps-pre", label=name)
    dress(axes, across=f"attack success left after the repair ({reading})", up="ROC AUC of the detector")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.05)
    in_percent(axes, "x")
    legend(figure, axes, 4)
    return figure


def _point(estimate: Estimate) -> Estimate:
    """The value alone."""
    return Estimate(estimate.value, estimate.value, estimate.value, estimate.n, estimate.unit)


def lengths(estimates: Sequence[Estimate]) -> list[list[float]]:
    """How far the intervals reach down and up, as error bars take it."""
    down = [max(0.0, one.value - one.low) for one in estimates]
    return [down, [max(0.0, one.high - one.value) for one in estimates]]


def plane_sections(rows: Sequence[Row], reading: str = "blind", mixed: Collection[str] = ()) -> list[Section]:
    """A section for each plane: a repairer and a detector that saw the same attacks; none if no pair did.

    Settings that are `mixed` may differ within a plane; numbers of trusted images that do stand beside the attacks.
    """
    sections: list[Section] = []
    for one_plane in planes(rows, mixed):
        places = one_plane.places
        counts = len({one.trusted for one in places}) > 1
        best = {id(one) for code in (False, True) for one in front([p for p in places if p.code is code], reading)}
        lines: list[list[Cell]] = [
            [
                f"{one.attack.replace('_', ' ')}, {one.dose:g}",
                "code" if one.code else "data",
                *([one.trusted] if counts else []),
                Percent(one.success),
                *(over_seeds(one.seeds[name], Percent(one.left[name])) for name in READINGS),
                one.repaired[reading] if len(one.seeds[reading]) > 2 else one.repaired[reading].value,
                one.area,
                Percent(one.guessed),
            ]
            for one in places
        ]
        columns = (
            "attack, strength",
            "poisons the",
            *(["trusted images"] if counts else []),
            "success undefended",
            *(f"left: {name}" for name in READINGS),
            f"Succ, {reading}",
            "ROC AUC",
            "detection game won",
        )
        marked = frozenset(number for number, one in enumerate(places) if id(one) in best)
        caption = (
            "An attacker wants the lower right; the numbers are its strengths, the lines what the best of them reach. "
            "Of two seeds both are marked."
        )
        sections.append(
            Section(
                f"Robustness against detectability: {one_plane.title}",
                "What the repair leaves and what the detector tells apart, together; set off: the attackers' fronts. "
                f"{_equal(places)}",
                Table(columns, lines, marked),
                [Picture(plane(places, reading), caption)],
            )
        )
    return sections


def _equal(places: Sequence[Place]) -> str:
    """The attacks compared at equal success, as far as their strengths allow."""
    own = {name: [one for one in places if one.attack == name] for name in dict.fromkeys(p.attack for p in places)}
    found = {name: area_at(few, SUCCESS_LEVEL) for name, few in own.items()}
    said = [f"{name.replace('_', ' ')} {area:.2f}" for name, area in found.items() if area is not None]
    return f"ROC AUC at an attack success of {SUCCESS_LEVEL:g}, interpolated: {', '.join(said)}." if said else ""
