"""What defenders make of the victims of triggerless poisons: what a repair leaves, and what is told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bezoar.measure.estimates import auc, mean, proportion
from bezoar.records import Estimate
from bezoar.report.canvas import LINES, WIDTH, blank, dress, in_percent, legend
from bezoar.report.groups import MISSHAPEN, Row, kind_of, unreadable
from bezoar.report.page import Cell, Percent, Picture, Section, Table
from bezoar.report.plane import lengths
from bezoar.report.transfers import Transferred, transferred

COLUMNS = (
    "attack",
    "victim",
    "defence",
    "success before",
    "left after repair",
    "base rate of that",
    "accuracy lost",
    "detectability: ROC AUC of models",
    "of rows",
)


READ = ("before", "final")


@dataclass(frozen=True)
class Examined:
    """What one defence makes of one attack on one victim; None where the game did not ask for it.

    Attributes:
        attack: its name.
        victim: its architecture, box and training.
        defence: the players.
        before, left: how many of the repaired victims' targets get the poisons' label, before and after the repair.
        base: how many do without poisons, after the same repair.
        lost: clean accuracy that the repair costs.
        models: ROC AUC of a detector over victims with poisons and without.
        rows: ROC AUC of a sanitizer over the rows of the victims.
    """

    attack: str
    victim: str
    defence: str
    before: Estimate | None
    left: Estimate | None
    base: Estimate | None
    lost: Estimate | None
    models: Estimate | None
    rows: Estimate | None


def examined(rows: Sequence[Row]) -> list[Examined]:
    """One for each attack, victim and defence, its seeds pooled; none without such rows.

    Raises:
        StoreError: a row lacks something, e.g. because another version of bezoar wrote it.
    """
    groups: dict[tuple[str, str, str], list[tuple[Transferred, Row]]] = {}
    for row in rows:
        if {"repaired", "inspected"} & set(row.get("result", {})):
            one = transferred([row])[0]
            name = one.attack, f"{one.victim} ({one.box} box), {one.transfer.replace('_', ' ')}", _defence(row["game"])
            groups.setdefault(name, []).append((one, row))
    return [_examined(name, few) for name, few in groups.items()]


def examined_sections(rows: Sequence[Row]) -> list[Section]:
    """A table of all, and the plane of those that were both repaired and told apart; nothing without such rows.

    Raises:
        StoreError: a row lacks something, e.g. because another version of bezoar wrote it.
    """
    found = examined(rows)
    if not found:
        return []
    lines: list[list[Cell]] = [
        [
            one.attack,
            one.victim,
            one.defence,
            *(_share(each) for each in (one.before, one.left, one.base, one.lost)),
            one.models if one.models is not None else "",
            one.rows if one.rows is not None else "",
        ]
        for one in found
    ]
    text = (
        "Robustness beside detectability, as for backdoors. A defender with a few trusted images repairs the victims "
        "of the first targets, to the last reading within the accuracy budget; the attack has survived where the "
        "repaired victim still gives its target the poisons' label. The base rate is that of the victim without "
        "poisons after the same repair. Models are told apart by a detector's score of victims with and without "
        "poisons, pooled over seeds; rows by a sanitizer's."
    )
    both = [one for one in found if one.left is not None and (one.models is not None or one.rows is not None)]
    hollow = "; hollow: rows by a sanitizer" if any(one.rows is not None for one in both) else ""
    caption = f"An attacker wants the lower right. Filled: victims told apart by a detector{hollow}."
    pictures = [Picture(examined_plane(both), caption)] if both else []
    return [Section("Triggerless poisons: robustness and detectability", text, Table(COLUMNS, lines), pictures)]


def examined_plane(found: Sequence[Examined]) -> Figure:
    """What a repair leaves (across) against what is told apart (up): by models, and by rows."""
    figure = blank(WIDTH, 4.6)
    axes: Axes = figure.subplots()
    several = len({(one.victim, one.defence) for one in found}) > 1
    for number, one in enumerate(found):
        colour = LINES[number % len(LINES)]
        name = f"{one.attack}: {one.victim}, {one.defence}" if several else one.attack
        for area, filled in ((one.models, True), (one.rows, False)):
            if area is None or one.left is None:
                continue
            axes.errorbar(
                one.left.value,
                area.value,
                xerr=lengths([one.left]),
                yerr=lengths([area]),
                color=colour,
                elinewidth=0.7,
                marker="o" if filled else "s",
                markerfacecolor=colour if filled else "none",
                markersize=6,
                linestyle="",
                label=name if filled or one.models is None else None,
            )
    dress(axes, across="attack success left after the repair", up="ROC AUC")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.05)
    in_percent(axes, "x")
    legend(figure, axes, 1 if several else 3)
    return figure


def _share(estimate: Estimate | None) -> Cell:
    return "" if estimate is None else Percent(estimate)


def _defence(game: Mapping[str, Any]) -> str:
    players = (game.get(role) for role in ("sanitizer", "repairer", "detector"))
    return ", ".join(kind_of(player).replace("_", " ") for player in players if player)


def _examined(name: tuple[str, str, str], few: Sequence[tuple[Transferred, Row]]) -> Examined:
    try:
        results = [row["result"] for _, row in few]
        repaired = [result["repaired"] for result in results if "repaired" in result]
        inspected = [result["inspected"] for result in results if "inspected" in result]
        before, left, base, lost = None, None, None, None
        if repaired:
            before, left = (_pooled([one[reading]["attack_success"] for one in repaired]) for reading in READ)
            base = _pooled([one["base_rate"]["final"] for one in repaired])
            lost = _over_seeds([Estimate.from_json(one["final"]["lost"]) for one in repaired])
        areas = [one.sanitized["auc"] for one, _ in few if one.sanitized]
        models, rows = _models(inspected) if inspected else None, _over_seeds(areas) if areas else None
        return Examined(*name, before, left, base, lost, models, rows)
    except MISSHAPEN as error:
        raise unreadable(few[0][1], error) from None


def _pooled(shares: Sequence[Mapping[str, Any]]) -> Estimate:
    """Shares of targets of several seeds, as one share."""
    found = [Estimate.from_json(one) for one in shares]
    count = sum(one.n for one in found)
    hits = round(sum(one.value * one.n for one in found))
    return proportion(torch.arange(count) < hits, unit="targets")


def _over_seeds(found: Sequence[Estimate]) -> Estimate:
    """One seed's own interval, or that of the mean of several."""
    return found[0] if len(found) == 1 else mean([one.value for one in found], "seeds")


def _models(inspected: Sequence[Mapping[str, Any]]) -> Estimate:
    """ROC AUC over the victims of all seeds."""
    poisoned, clean = ([each["score"] for one in inspected for each in one[name]] for name in ("poisoned", "clean"))
    return auc(poisoned, clean)
