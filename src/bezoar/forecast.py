"""What games will take before any is played: the time by the rows of others, the room by their models' weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from bezoar.component import canonical
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.records import Dataset


def expected_seconds(games: Sequence[Game], rows: Iterable[dict[str, Any]]) -> float | None:
    """How long games will take by rows of games like them, for each model that they train; None without such a row.

    Like means the same game, player, data and architecture. Rows whose models had been trained before are quicker
    than new ones, so it is a guess from below.
    """
    seen: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if "result" in row:
            with suppress(KeyError, TypeError, ValueError, AttributeError):  # another version's row tells nothing
                seconds = float(row["seconds"]) / _models(row["game"])
                seen.setdefault(_likeness(row["game"]), []).append(seconds)
    wanted = [(_likeness(game.identity()), _models(game.identity())) for game in games]
    if any(likeness not in seen for likeness, _ in wanted):
        return None
    return math.fsum(models * math.fsum(seen[likeness]) / len(seen[likeness]) for likeness, models in wanted)


def _likeness(game: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of a game, of the players that it puts to the test, of its data and of its architecture."""
    player, sanitizer = game.get("repairer") or game.get("detector") or {}, game.get("sanitizer") or {}
    return tuple(str(part.get("kind", "")) for part in (game, player, sanitizer, game["data"], game["architecture"]))


def _models(game: Mapping[str, Any]) -> int:
    """How many models a game looks at."""
    poisoned = int(game.get("models", 1))
    return poisoned + int(game.get("clean") or poisoned)


def expected_bytes(games: Sequence[Game], referee: Referee) -> int:
    """How much the weights of all models take that games train, those that they share once.

    Each architecture is built once for the images of its data, and trained nowhere; what it holds then is what is kept
    of each of its models, as float32 and the few counters of its layers. Nothing is taken off for models in the store.

    Raises:
        DataError: the data are not there.
        SettingError: an architecture cannot be built for them.
    """
    seen: dict[str, Dataset] = {}
    sizes: dict[str, int] = {}
    counted: dict[str, int] = {}
    for game in games:
        data = canonical(game.data.identity())
        if data not in seen:
            seen[data] = referee.splits(game.data).value.train
        for key, recipe in game.recipes().items():
            kind = canonical([data, recipe.made.identity()])
            if kind not in sizes:
                weights = referee.untrained(recipe, seen[data]).weights().values()
                sizes[kind] = sum(one.numel() * one.element_size() for one in weights)
            counted[key] = sizes[kind]
    return sum(counted.values())
