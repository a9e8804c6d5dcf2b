"""Robustness against detectability, the plane of "Pick your Poison" (Figure 7): an attacker wants to survive unseen.

A place in the plane is one attack at one strength: what a repair leaves of it (across) and how well a detector tells
its models from clean ones (up). It is joined from rows of both games that agree in all settings but the player, the
seed and the number of models.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bezoar.component import canonical, members
from bezoar.measure.estimates import mean, proportion
from bezoar.owner import ALPHA
from bezoar.records import Estimate
from bezoar.report.canvas import INK, LINES, MUTED, WIDTH, blank, dress, in_percent, legend
from bezoar.report.doses import share
from bezoar.report.groups import READINGS, Robust, Row, unreadable
from bezoar.report.page import Cell, Percent, Picture, Section, Table
from bezoar.roles import CodePoisoning

COMMON = ("data", "attack", "architecture", "trainer", "trusted", "trusted_source")
"""The settings in which both games must agree."""

SUCCESS_LEVEL = 0.5
"""At this attack success on undefended models the detectability of attacks is compared."""


@dataclass(frozen=True)
class Place:
    """One attack at one strength, under one repairer and one detector.

    Attributes:
        attack: its name.
        dose: poisoned images m, or for an attack on the training code the share of parameters it moves.
        code: whether the attack controls the training code (another threat model than data poisoning).
        success: of the attack on undefended models, the mean over seeds.
        left: reading -> what the repair leaves of it.
        repaired: reading -> Succ = E[clean accuracy - attack success] after the repair (Definition 1).
        area: ROC AUC of the detector over models.
        guessed: accuracy of the detection game (Algorithm 2) where the detector answers by its p-value.
    """

    attack: str
    dose: float
    code: bool
    success: Estimate
    left: dict[str, Estimate]
    repaired: dict[str, Estimate]
    area: Estimate
    guessed: Estimate


Players = tuple[str, str]
"""A repairer and a detector, by name."""


def planes(rows: Sequence[Row]) -> dict[Players, list[Place]]:
    """All places that the rows allow, for each pair of a repairer and a detector; weakest strength first.

    Raises:
        StoreError: a row lacks something, e.g. because another version of bezoar wrote it.
    """
    robust: dict[tuple[str, str], list[Row]] = {}
    detected: dict[tuple[str, str], Row] = {}
    for row in rows:
        game = row.get("game", {})
        kind = str(game.get("kind")).partition("@")[0]
        if kind == "robustness" and game.get("repairer") is not None:
            robust.setdefault((_key(row), _name(game["repairer"])), []).append(row)
        elif kind == "detectability":
            key = _key(row), _name(game["detector"])
            if key not in detected or _models(row) > _models(detected[key]):
                detected[key] = row
    found: dict[Players, list[Place]] = {}
    for (key, repairer), few in robust.items():
        for (other, detector), row in detected.items():
            if other == key:
                found.setdefault((repairer, detector), []).append(_place([Robust.read(one) for one in few], row))
    return {players: sorted(few, key=lambda one: (one.attack, one.dose)) for players, few in found.items()}


def _key(row: Row) -> str:
    return canonical({name: row["game"].get(name) for name in COMMON})


def _name(player: Row) -> str:
    return str(player["kind"]).partition("@")[0]


def _models(row: Row) -> int:
    return len(row["result"]["poisoned"]) + len(row["result"]["clean"])


def _place(read: Sequence[Robust], row: Row) -> Place:
    try:
        attack, result = row["game"]["attack"], row["result"]
        kind = _name(attack)
        member = members("attacks").get(kind)
        found = torch.tensor([one["p_value"] < ALPHA for one in result["poisoned"]])
        quiet = torch.tensor([one["p_value"] >= ALPHA for one in result["clean"]])
        points = {reading: [one.readings[reading] for one in read] for reading in READINGS}
        return Place(
            kind,
            float(attack["poisons"] if "poisons" in attack else attack["fraction"]),
            member is not None and issubclass(member, CodePoisoning),
            _over_seeds([one.attack_success for one in read]),
            {reading: _over_seeds([point.attack_success for point in few]) for reading, few in points.items()},
            {
                reading: mean([point.clean_accuracy.value - point.attack_success.value for point in few], "seeds")
                for reading, few in points.items()
            },
            Estimate.from_json(result["auc"]),
            guessed_right(proportion(found, unit="models"), proportion(quiet, unit="models")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(row, error) from None


def _over_seeds(values: Sequence[Estimate]) -> Estimate:
    return values[0] if len(values) == 1 else share([one.value for one in values])


def guessed_right(found: Estimate, quiet: Estimate) -> Estimate:
    """How often a detector wins the game in which a fair coin decides whether it gets a poisoned or a clean model.

    Args:
        found: share of poisoned models that it calls poisoned.
        quiet: share of clean models that it does not.
    """
    value = (found.value + quiet.value) / 2
    low = math.hypot(found.value - found.low, quiet.value - quiet.low) / 2
    high = math.hypot(found.high - found.value, quiet.high - quiet.value) / 2
    return Estimate(value, max(0.0, value - low), min(1.0, value + high), found.n + quiet.n, "models")


def front(places: Sequence[Place], reading: str) -> list[Place]:
    """The attacker's Pareto front: no other of the places is at least as robust and as hidden, and better in one."""

    def beats(one: Place, other: Place) -> bool:
        more, less = one.left[reading].value - other.left[reading].value, one.area.value - other.area.value
        return more >= 0 and less <= 0 and (more > 0 or less < 0)

    best = [one for one in places if not any(beats(other, one) for other in places)]
    return sorted(best, key=lambda one: one.left[reading].value)


def area_at(places: Sequence[Place], level: float) -> float | None:
    """ROC AUC of one attack where its success on undefended models passes a level, between two strengths; or None."""
    ordered = sorted(places, key=lambda one: one.dose)
    for weak, strong in itertools.pairwise(ordered):
        low, high = weak.success.value, strong.success.value
        if low <= level <= high and high > low:
            part = (level - low) / (high - low)
            return weak.area.value + part * (strong.area.value - weak.area.value)
    return None


def plane(places: Sequence[Place], reading: str) -> Figure:
    """Every place with its intervals; the strengths of one attack are joined, and so is each threat model's front."""
    figure = blank(WIDTH, 4.6)
    axes: Axes = figure.subplots()
    for number, attack in enumerate(dict.fromkeys(one.attack for one in places)):
        few = [one for one in places if one.attack == attack]
        across, up = [one.left[reading] for one in few], [one.area for one in few]
        axes.errorbar(
            [one.value for one in across],
            [one.value for one in up],
            xerr=[[one.value - one.low for one in across], [one.high - one.value for one in across]],
            yerr=[[one.value - one.low for one in up], [one.high - one.value for one in up]],
            color=LINES[number % len(LINES)],
            elinewidth=0.7,
            linewidth=1.2,
            marker="D" if few[0].code else "o",
            markersize=6,
            label=attack.replace("_", " "),
        )
        for one in few:
            where = (one.left[reading].value, one.area.value)
            axes.annotate(f"{one.dose:g}", where, (4, 4), textcoords="offset points", fontsize=8, color=MUTED)
    for code, dash in ((False, (0, (4, 2))), (True, (0, (1, 1.5)))):
        best = front([one for one in places if one.code is code], reading)
        if best:
            line = [one.left[reading].value for one in best], [one.area.value for one in best]
            name = f"front of {'code' if code else 'data'} poisoning"
            axes.plot(*line, color=INK, linewidth=1, linestyle=dash, drawstyle="steps-post", label=name)
    dress(axes, across=f"attack success left after the repair ({reading})", up="ROC AUC of the detector")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.05)
    in_percent(axes, "x")
    legend(figure, axes, 4)
    return figure


def plane_sections(rows: Sequence[Row], reading: str = "blind") -> list[Section]:
    """A section for each pair of a repairer and a detector that saw the same attacks; none if no pair did."""
    sections: list[Section] = []
    for (repairer, detector), places in planes(rows).items():
        best = {id(one) for code in (False, True) for one in front([p for p in places if p.code is code], reading)}
        lines: list[list[Cell]] = [
            [
                f"{one.attack.replace('_', ' ')}, {one.dose:g}",
                "code" if one.code else "data",
                Percent(one.success),
                *(Percent(one.left[name]) for name in READINGS),
                one.repaired[reading],
                one.area,
                Percent(one.guessed),
            ]
            for one in places
        ]
        columns = (
            "attack, strength",
            "poisons the",
            "success undefended",
            *(f"left: {name}" for name in READINGS),
            f"Succ, {reading}",
            "ROC AUC",
            "detection game won",
        )
        marked = frozenset(number for number, one in enumerate(places) if id(one) in best)
        caption = "An attacker wants the lower right; the numbers are its strengths, the lines the best that it can do."
        sections.append(
            Section(
                f"Robustness against detectability: {repairer.replace('_', ' ')}, {detector.replace('_', ' ')}",
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
