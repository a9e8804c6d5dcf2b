"""Many games: one result row each, resumable, with the repairers tuned first where a settings file asks for it.

An engine plays them: one after another (`Serial`), or several at once on one machine or a cluster (`bezoar.workers`).
Whatever plays them, the rows are the same; several sweeps may write into one file of results, and none loses a row.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bezoar.errors import BezoarError, SettingError, StoreError
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.rows import Results, Row, provenance
from bezoar.tuning import FOLDS, Search, require_searchable, tuned


@dataclass(frozen=True)
class Resolved:
    """Games as they are to be played.

    Attributes:
        games: with the settings that a search has found, if one was asked for.
        searches: what was searched, one for each game; empty without a search.
    """

    games: list[Game]
    searches: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def told(self, row: Row, number: int) -> Row:
        """The row of a game, which says under `tuned` what was searched for it; its address does not depend on that."""
        return {**row, "tuned": self.searches[number]} if self.searches else row


def resolve(games: Sequence[Game], wanted: bool, referee: Referee) -> Resolved:
    """The games of a settings file, their repairers with the settings that ``tuned: true`` asks for.

    Games that differ in attack, target, poison rate or seed alone share one search, through the store.

    Raises:
        SettingError: a game has no repairer to tune.
    """
    if not wanted:
        return Resolved(list(games))
    tunable = require_tunable(games)
    found = [tuned(game, referee) for game in tunable]
    played = [game.replace(repairer=search.repairer) for game, search in zip(tunable, found, strict=True)]
    return Resolved(list[Game](played), [_facts(search) for search in found])


def _facts(search: Search) -> dict[str, Any]:
    """What a row says of a search: what was tried, and what the given settings (trial 0) and the found ones did."""
    given, winner = search.trials[0], search.winner
    return {
        "searched": {name: [tried.low, tried.high] for name, tried in search.repairer.ranges.items()},
        "trials": len(search.trials),
        "folds": search.folds,
        "given": {"settings": given.settings, **vars(given.best)},
        "found": {"number": winner.number, "settings": winner.settings, **vars(winner.best)},
    }


def require_tunable(games: Sequence[Game]) -> list[Robustness]:
    """The same games, all of which can be tuned.

    Raises:
        SettingError: one cannot; nothing has been trained or searched yet.
    """
    tunable: list[Robustness] = []
    for game in games:
        if not isinstance(game, Robustness) or game.repairer is None:
            raise SettingError(f"tuned: a {game.kind!r} game without a repairer has nothing to tune")
        require_searchable(game.repairer, game.trusted, FOLDS)
        tunable.append(game)
    return tunable


@runtime_checkable
class Watcher(Protocol):
    """Is told how a sweep goes."""

    def started(self, game: Game) -> None:
        """A game is being played from now on."""
        ...

    def finished(self, game: Game, row: Row) -> None:
        """A game has its row."""
        ...


class Unwatched:
    """A watcher that does nothing."""

    def started(self, game: Game) -> None:
        """Nothing."""

    def finished(self, game: Game, row: Row) -> None:
        """Nothing."""


class Queue:
    """The games of a sweep that have no result yet."""

    def __init__(self, games: Sequence[Game], referee: Referee, results: Results) -> None:
        self.results = results
        self.addresses = [game.address(referee) for game in games]
        self.left = dict(zip(self.addresses, games, strict=True))
        self._forget_played()

    def take(self, busy: Collection[Game] = ()) -> Game | None:
        """The next game, or None when all are played, by whatever process.

        Of those left, the first that shares fewest models with `busy` games, which may be training them: it would wait.
        """
        self.results.refresh()
        self._forget_played()
        if not self.left:
            return None
        trained = set[str]().union(*(game.trainings() for game in busy))
        return self.left.pop(min(self.left, key=lambda address: len(trained & self.left[address].trainings())))

    def _forget_played(self) -> None:
        self.left = {address: game for address, game in self.left.items() if not self.results.has(address)}


@runtime_checkable
class Engine(Protocol):
    """Plays games."""

    def play(self, queue: Queue, referee: Referee, watcher: Watcher) -> Iterator[Row]:
        """The rows of all games of a queue, as they come."""
        ...


class Serial:
    """Plays one game after another, in this process."""

    def play(self, queue: Queue, referee: Referee, watcher: Watcher) -> Iterator[Row]:
        """The rows in the order of the games."""
        while (game := queue.take()) is not None:
            watcher.started(game)
            row = attempt(game, referee)
            yield row
            watcher.finished(game, row)


def play(game: Game, referee: Referee) -> Row:
    """Play one game and make its result row: address, game, result, seconds, provenance."""
    started = time.monotonic()
    result = game.play(referee)
    return {
        "address": game.address(referee),
        "game": game.identity(),
        "result": result,
        "seconds": round(time.monotonic() - started, 1),
        "provenance": provenance(referee.lab.device),
    }


def attempt(game: Game, referee: Referee) -> Row:
    """Play one game; one that fails is a row with `error` instead of `result`.

    Raises:
        StoreError: results cannot be kept, so that no further game could be either.
    """
    try:
        return play(game, referee)
    except StoreError:
        raise
    except BezoarError as error:
        return failed(game, referee, str(error))
    except Exception as error:  # a defect of one method must not take the night's other games with it
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"
        return failed(game, referee, said)


def failed(game: Game, referee: Referee, error: str) -> Row:
    """The row of a game that gave no result."""
    return {"address": game.address(referee), "game": game.identity(), "error": error}


def sweep(
    games: Sequence[Game] | Resolved,
    referee: Referee,
    results: Results,
    *,
    engine: Engine | None = None,
    watcher: Watcher | None = None,
) -> list[Row]:
    """Play the games that have no result yet, and return every game's row in order.

    Each row is kept as soon as its game is over, so that a sweep which is stopped goes on from there. A game that
    fails is kept as a row with `error` and is played again next time; the rest go on.

    Raises:
        StoreError: the store or the file of results cannot be written; for the latter before a game is played.
    """
    resolved = games if isinstance(games, Resolved) else Resolved(list(games))
    queue = Queue(resolved.games, referee, results)
    if queue.left:
        results.require_writable()
    places = {address: number for number, address in enumerate(queue.addresses)}
    for row in (engine or Serial()).play(queue, referee, watcher or Unwatched()):
        results.add(resolved.told(row, places[row["address"]]))
    return [results.rows[address] for address in queue.addresses]


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
