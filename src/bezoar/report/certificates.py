"""Rows of the certification game, read: who was attacked, who certified, and what was measured of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from bezoar.records import Estimate
from bezoar.report.groups import MISSHAPEN, Row, differing, group, kind_of, unreadable
from bezoar.report.page import number

MEASURABLE = 0.6
"""Of stamped images the twin must have so many certified, or what a poison takes away cannot be seen."""

DEFENCES = ("sanitizer", "repairer", "guard")


@dataclass(frozen=True)
class Certified:
    """Rows that differ by nothing but their seed, read.

    Attributes:
        data, network, trainer: their names.
        certifier: its name, and what it demands.
        attack: its name and how many points it poisons.
        defence: its name, or empty.
        rows: one for each seed.
    """

    data: str
    network: str
    trainer: str
    certifier: str
    attack: str
    defence: str
    rows: list[Row]

    @staticmethod
    def read(rows: Sequence[Row]) -> Certified:
        """Rows of one group.

        Raises:
            StoreError: a row lacks something, e.g. because another version of bezoar wrote it.
        """
        try:
            game = rows[0]["game"]
            defence = next((kind_of(game[name]) for name in DEFENCES if game.get(name) is not None), "")
            inner = game["certifier"]
            if "certifier" in inner:  # one that holds another is a defence around it
                inner, defence = inner["certifier"], kind_of(inner)
            network, trainer = game["architecture"], game["trainer"]
            if kind_of(trainer) == "partition_ensemble":
                trainer, defence = trainer["trainer"], f"partition ensemble of {trainer['parts']}"
            return Certified(
                kind_of(game["data"]),
                kind_of(network),
                _trainer(trainer),
                _certifier(inner),
                _attack(game["attack"]),
                defence.replace("_", " "),
                list(rows),
            )
        except MISSHAPEN as error:
            raise unreadable(rows[0], error) from None

    @property
    def setting(self) -> tuple[str, str, str, str]:
        """What stays the same between attacks and defences that are compared."""
        return self.data, self.network, self.trainer, self.certifier

    def estimates(self, *path: str) -> list[Estimate]:
        """One number of every row, e.g. ``estimates("suspect", "stamped", "certified")``."""
        found: list[Estimate] = []
        for row in self.rows:
            here: Any = row["result"]
            try:
                for name in path:
                    here = here[name]
                found.append(Estimate.from_json(cast("Mapping[str, object]", here)))
            except MISSHAPEN as error:
                raise unreadable(row, error) from None
        return found

    def by_seed(self, *path: str) -> dict[int, Estimate]:
        """The same by the game's seed."""
        return dict(zip((int(row["game"]["seed"]) for row in self.rows), self.estimates(*path), strict=True))

    def value(self, *path: str) -> float:
        """The mean of that number over seeds."""
        return float(np.mean([one.value for one in self.estimates(*path)]))

    @property
    def measurable(self) -> bool:
        """Whether the twin has enough certificates on stamped images for a loss to be seen."""
        return self.value("twin", "stamped", "certified") >= MEASURABLE


def _trainer(trainer: Mapping[str, Any]) -> str:
    kind = kind_of(trainer)
    if trainer.get("noise"):
        return f"{kind}, noise {number(float(trainer['noise']))}"
    return f"{kind}, ε {number(float(trainer['epsilon']))}" if "epsilon" in trainer else kind


def _certifier(certifier: Mapping[str, Any]) -> str:
    kind = kind_of(certifier)
    if "sigma" in certifier:
        return f"{kind}, \N{GREEK SMALL LETTER SIGMA} {number(float(certifier['sigma']))}, n {certifier['draws']:,}"
    methods = ", ".join(certifier["methods"]) if "methods" in certifier else kind
    return f"{methods}, ε {number(float(certifier['epsilon']))}" if "epsilon" in certifier else methods


def _attack(attack: Mapping[str, Any]) -> str:
    return f"{kind_of(attack).replace('_', ' ')} {attack['poisons']:,}" if "poisons" in attack else kind_of(attack)


def certified(rows: Sequence[Row]) -> list[Certified]:
    """All rows of the certification game, those of one group together; names tell each group from the others."""
    groups = group(rows, "certifier")
    found = [Certified.read(one.rows) for one in groups]
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, one in enumerate(found):
        alike.setdefault((one.setting, one.attack, one.defence), []).append(place)
    for places in alike.values():
        fields = [name for name in differing([groups[place].settings for place in places]) if name != "images"]
        for place in places:
            said = [_said(name, groups[place].settings.get(name)) for name in fields]
            words = ", ".join(each for each in said if each)
            one = found[place]
            named = f"{one.defence} ({words})" if one.defence else f"{one.attack} ({words})"
            if words:
                found[place] = replace(one, **{"defence" if one.defence else "attack": named})
    return found


def _said(name: str, value: object) -> str:
    """A setting that tells groups apart, without the player that it belongs to; nothing where it is not set."""
    if value is None:
        return ""
    *players, last = name.split(".")
    text = number(value) if isinstance(value, float) else str(value).partition("@")[0]
    return f"{(players[-1] if last == 'kind' and players else last)} {text}".replace("_", " ")
