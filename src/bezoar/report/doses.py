"""How much poison an attack needs: attack success over the number of poisoned images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from bezoar.measure.estimates import mean
from bezoar.records import Estimate
from bezoar.report.canvas import BLUE, MUTED, WIDTH, blank, dress, in_percent, legend
from bezoar.report.groups import MISSHAPEN, Row, differing, flat, kind_of, told, unreadable

ACROSS = 3
"""Panels in one line."""

CODE = "of the parameters"
TITLE = 27
"""Letters in a line of a panel's title."""

AMOUNTS = ("attack.poisons", "attack.fraction")


@dataclass(frozen=True)
class Dose:
    """All seeds of one attack at one strength.

    Attributes:
        attack: its name, and its settings where one attack is shown with several.
        amount: poisoned images m, or for an attack on the training code the share of parameters it moves.
        unit: of `amount`.
        success, natural, clean, twin: attack success and clean accuracy of the suspects and of their twins, one
            number a seed, in the same order.
    """

    attack: str
    amount: float
    unit: str
    success: list[float]
    natural: list[float]
    clean: list[float]
    twin: list[float]


def doses(rows: Sequence[Row]) -> list[Dose]:
    """Rows of robustness games by attack and strength, weakest first.

    Raises:
        StoreError: a row lacks something, e.g. because another version of bezoar wrote it.
    """
    found: dict[tuple[str, float], Dose] = {}
    ordered = sorted(rows, key=lambda row: row["game"]["seed"])
    for row, name in zip(ordered, _names(ordered), strict=True):
        try:
            attack, result = row["game"]["attack"], row["result"]
            amount, unit = (
                (float(attack["poisons"]), "poisoned images")
                if "poisons" in attack
                else (float(attack["fraction"]), CODE)
            )
            dose = found.setdefault((name, amount), Dose(name, amount, unit, [], [], [], []))
            for values, model, reading in (
                (dose.success, "suspect", "attack_success"),
                (dose.natural, "twin", "attack_success"),
                (dose.clean, "suspect", "clean_accuracy"),
                (dose.twin, "twin", "clean_accuracy"),
            ):
                values.append(Estimate.from_json(result[model][reading]).value)
        except MISSHAPEN as error:
            raise unreadable(row, error) from None
    return sorted(found.values(), key=lambda dose: (dose.attack, dose.amount))


def _names(rows: Sequence[Row]) -> list[str]:
    """What each row's attack is called: its kind, and every other setting in which rows of that kind differ.

    Games that differ in more than their seed are no seeds of one another.
    """
    described = [_described(row) for row in rows]
    fields = {kind: differing([one for other, one in described if other == kind]) for kind, _ in described}
    return [" · ".join([kind, *told(settings, fields[kind])]) for kind, settings in described]


def _described(row: Row) -> tuple[str, Row]:
    """The kind of a row's attack, and its settings but seed and strength, dotted field -> value."""
    try:
        settings = {name: value for name, value in flat(row["game"]).items() if name not in ("seed", *AMOUNTS)}
        return kind_of(row["game"]["attack"]), settings
    except MISSHAPEN as error:
        raise unreadable(row, error) from None


def share(values: Sequence[float]) -> Estimate:
    """The mean of shares over seeds; Student's interval knows no edges, so it is cut at 0 and 1."""
    found = mean(values, "seeds")
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high), found.n, found.unit)


def dose_curves(found: Sequence[Dose]) -> Figure:
    """One panel an attack: success of every seed and their mean over the number of poisons, and natural success."""
    names = list(dict.fromkeys(dose.attack for dose in found))
    lines = -(-len(names) // ACROSS)
    figure = blank(WIDTH, 2.3 * lines + 0.4)
    cells = figure.subplots(lines, min(ACROSS, len(names)), squeeze=False, sharey=True).flat
    panels: list[Axes] = list(cells)
    for name, axes in zip(names, panels, strict=False):
        _panel(axes, name, [dose for dose in found if dose.attack == name])
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    legend(figure, panels[0], 3)
    return figure


def _panel(axes: Axes, name: str, found: Sequence[Dose]) -> None:
    amounts = [dose.amount for dose in found]
    means = [share(dose.success) for dose in found]
    axes.plot(amounts, [each.value for each in means], color=BLUE, linewidth=1.7, label="attack success, mean")
    axes.fill_between(
        amounts, [each.low for each in means], [each.high for each in means], color=BLUE, alpha=0.16, linewidth=0
    )
    for values, colour, marker, label in (
        ([dose.success for dose in found], BLUE, "o", "attack success, one seed"),
        ([dose.natural for dose in found], MUTED, "x", "natural success, one seed"),
    ):
        pairs = [(amount, value) for amount, seeds in zip(amounts, values, strict=True) for value in seeds]
        axes.plot(*zip(*pairs, strict=True), color=colour, linestyle="", marker=marker, markersize=4, label=label)
    dress(axes, across=f"{found[0].unit}", up="", title=fill(name.replace("_", " "), TITLE))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(amounts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{amount:g}" for amount in amounts])
    axes.set_ylim(-0.04, 1.04)
    in_percent(axes)
