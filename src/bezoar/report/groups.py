"""Which result rows belong together: games that differ by nothing but their seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from bezoar.component import canonical
from bezoar.errors import StoreError
from bezoar.games.repairing import Point
from bezoar.measure.estimates import mean
from bezoar.records import Estimate
from bezoar.report.page import Cell, Percent, number, percent

Row = Mapping[str, Any]
Drawn = TypeVar("Drawn")

MISSHAPEN = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What reading a row raises that lacks something, or holds something else in its place; see `unreadable`."""

READINGS = ("blind", "final", "oracle")


@dataclass(frozen=True)
class Group:
    """Rows whose settings differ by the seed alone.

    Attributes:
        label: what tells this group from the others.
        settings: all settings but the seed, dotted field -> value.
        rows: in order of their seeds.
    """

    label: str
    settings: dict[str, Any]
    rows: list[Row]


def kind_of(component: Mapping[str, Any]) -> str:
    """The name of a component in a row, without its revision."""
    return str(component["kind"]).partition("@")[0]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted field -> value."""
    fields: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping)
        fields |= flat(cast("Row", value), f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return fields


def group(rows: Iterable[Row], player: str) -> list[Group]:
    """Rows of one game by their settings, in the order in which they first occur.

    Args:
        rows: each with `game`, its settings.
        player: the role that the game puts to the test, `repairer` or `detector`.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        settings = {name: value for name, value in row["game"].items() if name != "seed"}
        found.setdefault(canonical(settings), []).append(row)
    settings = [
        flat({name: value for name, value in few[0]["game"].items() if name != "seed"}) for few in found.values()
    ]
    fields = differing(settings)
    labels = [_label(one, fields, player) for one in settings]
    return [
        Group(label, one, sorted(few, key=lambda row: row["game"].get("seed", 0)))
        for label, one, few in zip(_unique(labels, settings), settings, found.values(), strict=True)
    ]


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dotted fields that tell settings apart, without those that a component's kind decides already."""
    fields = list(dict.fromkeys(name for one in settings for name in one))
    chosen: list[str] = []
    for name in fields:
        parts = name.split(".")
        kinds = [".".join([*parts[:depth], "kind"]) for depth in range(len(parts))]
        above = [kind for kind in kinds if kind != name]
        values: dict[str, set[str]] = {}
        for one in settings:
            values.setdefault(canonical([one.get(kind) for kind in above]), set()).add(canonical(one.get(name)))
        if any(len(seen) > 1 for seen in values.values()):
            chosen.append(name)
    return chosen


def _label(settings: Mapping[str, Any], fields: Sequence[str], player: str) -> str:
    """The players of a game, and whatever else tells it from the others."""
    players = [str(settings.get(f"{role}.kind", role)).split("@")[0] for role in ("data", "attack", player)]
    others = [name for name in fields if name not in (f"{role}.kind" for role in ("data", "attack", player))]
    return " · ".join([*players, *told(settings, others)]).replace("_", " ")


def told(settings: Mapping[str, Any], fields: Iterable[str]) -> list[str]:
    """Some fields and their values, as far as the settings have them."""
    return [f"{name} {_plain(settings[name])}" for name in fields if name in settings]


def _plain(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _unique(labels: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Labels with the revisions of the players where they would not differ otherwise."""
    if len(set(labels)) == len(labels):
        return list(labels)
    kinds = [" ".join(str(value) for name, value in one.items() if name.endswith("kind")) for one in settings]
    return [f"{label} ({kind})" for label, kind in zip(labels, kinds, strict=True)]


@dataclass(frozen=True)
class Robust:
    """One row of the robustness game, read."""

    row: Row
    seed: int
    attack_success: Estimate
    natural_success: Estimate
    clean_accuracy: Estimate
    readings: dict[str, Point]
    curve: list[Point]

    @staticmethod
    def read(row: Row) -> Robust:
        """The row of a robustness game.

        Raises:
            StoreError: the row lacks something, e.g. because another version of bezoar wrote it.
        """
        try:
            result = row["result"]
            return Robust(
                row,
                int(row["game"]["seed"]),
                Estimate.from_json(result["suspect"]["attack_success"]),
                Estimate.from_json(result["twin"]["attack_success"]),
                Estimate.from_json(result["suspect"]["clean_accuracy"]),
                {name: Point.from_json(result["repaired"][name]) for name in READINGS},
                [Point.from_json(point) for point in result["curve"]],
            )
        except MISSHAPEN as error:
            raise unreadable(row, error) from None


def unreadable(row: Row, error: Exception) -> StoreError:
    """What to say of a row that lacks something."""
    return StoreError(
        f"row {row.get('address', '?')}: {type(error).__name__} {error}; it is no result of this version of bezoar, "
        "so remove the row and play the game again"
    )


def guarded(draw: Callable[[Sequence[Row]], Drawn], rows: Sequence[Row]) -> Drawn:
    """What is drawn of rows.

    Raises:
        StoreError: a row lacks something that the drawing needs; the first that cannot be drawn alone is named.
    """
    try:
        return draw(rows)
    except MISSHAPEN:
        for row in rows:
            try:
                draw([row])
            except MISSHAPEN as error:
                raise unreadable(row, error) from error
        raise  # every row is sound, so the defect is the drawing's own


def over_seeds(estimates: Sequence[Estimate], average: Cell) -> Cell:
    """The average of several seeds, or with one or two the values themselves, which say more."""
    if len(estimates) > 2:
        return average
    return " and ".join(percent(one.value) for one in estimates)


def joined(found: Sequence[Estimate], *, signed: bool = False) -> Estimate:
    """The mean over seeds of what was measured on the same images; of one seed, its own.

    Student's interval over seeds, no narrower than that of one seed: seeds share the test images, so what chance there
    is in these does not average out. It ends at 0 and 1, where shares do, or for `signed` changes at -1 and 1.
    """
    if len(found) == 1:
        return found[0]
    over = mean([one.value for one in found], "seeds")
    low, high = (float(np.mean(ends)) for ends in zip(*((one.low, one.high) for one in found), strict=True))
    return Estimate(
        over.value, max(-1.0 if signed else 0.0, min(over.low, low)), min(1.0, max(over.high, high)), over.n, over.unit
    )


def seeds_cell(found: Sequence[Estimate], *, in_percent: bool = True, signed: bool = False) -> Cell:
    """One seed with its own interval, two as they are, and the mean of more (`joined`)."""
    if len(found) == 2:
        return " and ".join(percent(one.value) if in_percent else number(one.value) for one in found)
    one = joined(found, signed=signed)
    return Percent(one, bar=not signed) if in_percent else one
