"""Robustness and detectability together: which rows of the two games belong to one attack at one strength.

A place in the plane is one attack at one strength: what a repair leaves of it (across) and how well a detector tells
its models from clean ones (up). It is joined from rows of both games that agree in all settings but the player, the
seed and the number of models.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bezoar.component import build, canonical, members
from bezoar.measure.estimates import mean, proportion
from bezoar.owner import ALPHA
from bezoar.records import Estimate
from bezoar.report.doses import share
from bezoar.report.groups import MISSHAPEN, READINGS, Robust, Row, differing, flat, kind_of, unreadable
from bezoar.roles import Attack, CodePoisoning

COMMON = ("data", "attack", "architecture", "trainer", "trusted", "trusted_source")
"""The settings in which both games must agree."""


@dataclass(frozen=True)
class Place:
    """One attack at one strength, under one repairer and one detector.

    Attributes:
        attack: its name.
        dose: poisoned images m, or for an attack on the training code the share of parameters it moves.
        trusted: how many trusted images both defenders have.
        code: whether the attack controls the training code (another threat model than data poisoning).
        success: of the attack on undefended models, the mean over seeds.
        left: reading -> what the repair leaves of it, the mean over seeds.
        seeds: reading -> the same seed by seed.
        repaired: reading -> Succ = E[clean accuracy - attack success] after the repair (Definition 1).
        area: ROC AUC of the detector over models.
        guessed: accuracy of the detection game (Algorithm 2) where the detector answers by its p-value.
    """

    attack: str
    dose: float
    trusted: int
    code: bool
    success: Estimate
    left: dict[str, Estimate]
    seeds: dict[str, list[Estimate]]
    repaired: dict[str, Estimate]
    area: Estimate
    guessed: Estimate


@dataclass(frozen=True)
class Plane:
    """All places of one repairer and one detector, with the same settings, on one victim and one data set.

    Attributes:
        title: the players, and what tells this plane from others.
        places: by attack, weakest strength first.
    """

    title: str
    places: list[Place]


def planes(rows: Sequence[Row], mixed: Collection[str] = ()) -> list[Plane]:
    """All planes that rows allow.

    The places of one plane have all settings in common but the attack and those that are to be `mixed`. Seeds of a
    repair are averaged only over rows that differ in nothing else; of several populations of one detector on one
    attack the largest counts.

    Raises:
        StoreError: a row lacks something, e.g. because another version of bezoar wrote it.
    """
    robust: dict[str, list[Row]] = {}
    detected: dict[tuple[str, str], Row] = {}
    for row in rows:
        game = row.get("game", {})
        kind = str(game.get("kind")).partition("@")[0]
        if kind == "robustness" and game.get("repairer") is not None:
            robust.setdefault(canonical({**game, "seed": None}), []).append(row)
        elif kind == "detectability":
            key = _common(row), canonical(game["detector"])
            if key not in detected or _models(row) > _models(detected[key]):
                detected[key] = row
    found: dict[str, list[Place]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for few in robust.values():
        for (common, _), row in detected.items():
            if common == _common(few[0]):
                shown = _settings(few[0], row, mixed)
                key = canonical(shown)
                settings[key] = shown
                found.setdefault(key, []).append(_place([Robust.read(one) for one in few], row))
    titles = _titles(list(settings.values()))
    return [
        Plane(title, sorted(few, key=lambda one: (one.attack, one.dose)))
        for title, few in zip(titles, found.values(), strict=True)
    ]


def _common(row: Row) -> str:
    return canonical({name: row["game"].get(name) for name in COMMON})


def _settings(repaired: Row, detected: Row, mixed: Collection[str]) -> dict[str, Any]:
    """What all places of one plane have in common, as dotted fields."""
    shared = {name: repaired["game"].get(name) for name in COMMON if name not in ("attack", *mixed)}
    own = {
        name: repaired["game"].get(name) for name in ("sanitizer", "removed", "repairer", "budget", "every", "folds")
    }
    return flat({**shared, **own, "detector": detected["game"]["detector"]})


def _titles(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The players of each plane, and in brackets what tells it from the others."""
    players = ("repairer.kind", "detector.kind")
    fields = [name for name in differing(settings) if name not in players]
    titles: list[str] = []
    for one in settings:
        names = " and ".join(kind_of({"kind": one[player]}).replace("_", " ") for player in players)
        others = ", ".join(f"{name} {one[name]}" for name in fields if name in one)
        titles.append(f"{names} ({others})" if others else names)
    return titles


def _models(row: Row) -> int:
    return len(row["result"]["poisoned"]) + len(row["result"]["clean"])


def _place(read: Sequence[Robust], row: Row) -> Place:
    try:
        attack, result = row["game"]["attack"], row["result"]
        kind = kind_of(attack)
        member = members("attacks").get(kind)
        found, alarms = (
            torch.tensor([one["p_value"] < ALPHA and not one.get("abstained") for one in result[name]])
            for name in ("poisoned", "clean")
        )
        points = {reading: [one.readings[reading] for one in read] for reading in READINGS}
        return Place(
            _attack(attack),
            float(attack["poisons"] if "poisons" in attack else attack["fraction"]),
            int(row["game"]["trusted"]),
            member is not None and issubclass(member, CodePoisoning),
            _over_seeds([one.attack_success for one in read]),
            {reading: _over_seeds([point.attack_success for point in few]) for reading, few in points.items()},
            {reading: [point.attack_success for point in few] for reading, few in points.items()},
            {
                reading: mean([point.clean_accuracy.value - point.attack_success.value for point in few], "seeds")
                for reading, few in points.items()
            },
            Estimate.from_json(result["auc"]),
            guessed_right(proportion(found, unit="models"), proportion(~alarms, unit="models")),
        )
    except MISSHAPEN as error:
        raise unreadable(row, error) from None


def _attack(settings: Row) -> str:
    """An attack's name, and its settings that are not its own defaults and not its strength."""
    kind = kind_of(settings)
    member = members("attacks").get(kind)
    usual = {} if member is None else flat(build(Attack, kind).identity())
    given = {name: value for name, value in flat(settings).items() if name not in ("kind", "poisons", "fraction")}
    unusual = [f"{name} {value}" for name, value in given.items() if member is not None and value != usual.get(name)]
    return ", ".join([kind, *unusual])


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
