"""Many games: one result row each, resumable, with the repairers tuned first where a settings file asks for it.

An engine plays them: one after another (`Serial`), or several at once on one machine or a cluster (`bezoar.workers`).
Whatever plays them, the rows are the same; several sweeps may write into one file of results, and none loses a row.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bezoar.component import canonical
from bezoar.errors import BezoarError, SettingError, StoreError
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.rows import Results, Row, provenance
from bezoar.slices import Slice
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


def resolve(
    games: Sequence[Game],
    wanted: bool,
    referee: Referee,
    *,
    engine: Engine | None = None,
    limit: Slice | None = None,
) -> Resolved:
    """The games of a settings file, their repairers with the settings that ``tuned: true`` asks for.

    Games that differ in attack, target, poison rate or seed alone share one search, through the store. An engine with
    several workers makes several searches at once; what is found is the same.

    Raises:
        SettingError: a game has no repairer to tune.
        TimeUpError: the slice is over before the last search; the trials that it has made are kept.
    """
    if not wanted:
        return Resolved(list(games))
    tunable, limit = require_tunable(games), limit or Slice()
    (engine or Serial()).search(_apart(tunable), referee, limit)
    found = [tuned(game, referee, limit=limit) for game in tunable]
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


def _apart(games: Sequence[Robustness]) -> list[Robustness]:
    """One game for each search that games ask for: what differs in attack and seed alone shares one."""
    searches: dict[str, Robustness] = {}
    for game in games:
        facts = {name: value for name, value in game.identity().items() if name not in ("attack", "seed")}
        searches.setdefault(canonical(facts), game)
    return list(searches.values())


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
    """The games of a sweep that have no result yet.

    Args:
        games: all of the sweep.
        referee: who plays them.
        results: the rows that exist, also those that other processes add.
        limit: the time in which games are handed out; without it all are.
    """

    def __init__(self, games: Sequence[Game], referee: Referee, results: Results, limit: Slice | None = None) -> None:
        self.results = results
        self.limit = limit or Slice()
        self.addresses = [game.address(referee) for game in games]
        self.left = dict(zip(self.addresses, games, strict=True))
        self._forget_played()

    def take(self, busy: Collection[Game] = ()) -> Game | None:
        """The next game, or None when all are played, by whatever process, or the time is up.

        Of those left, the first that shares fewest models with `busy` games, which may be training them: it would wait.
        Games that have failed before come last, so that short slices do not try them over and over and no other.
        """
        self.results.refresh()
        self._forget_played()
        if self.closed:
            return None
        self.limit.begin()
        trained = set[str]().union(*(game.trainings() for game in busy))

        def rank(address: str) -> tuple[bool, int]:
            return address in self.results.rows, len(trained & self.left[address].trainings())

        return self.left.pop(min(self.left, key=rank))

    @property
    def closed(self) -> bool:
        """Whether no game is handed out any more."""
        return not self.left or self.limit.over

    def _forget_played(self) -> None:
        self.left = {address: game for address, game in self.left.items() if not self.results.has(address)}


@runtime_checkable
class Engine(Protocol):
    """Plays games."""

    def search(self, games: Sequence[Robustness], referee: Referee, limit: Slice) -> None:
        """Try settings for these games ahead of those who ask for them, as far as that saves time."""
        ...

    def play(self, queue: Queue, referee: Referee, watcher: Watcher) -> Iterator[Row]:
        """The rows of all games that a queue hands out, as they come."""
        ...


class Serial:
    """Plays one game after another, in this process."""

    def search(self, games: Sequence[Robustness], referee: Referee, limit: Slice) -> None:
        """Nothing: whoever asks for a search makes it."""

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
    limit: Slice | None = None,
) -> list[Row]:
    """Play the games that have no result yet, and return in order the rows of all that have one.

    Those are all games, unless a `limit` of time ends the sweep before: then no further game is begun, and those in
    play are finished.

    Each row is kept as soon as its game is over, so that a sweep which is stopped goes on from there. A game that
    fails is kept as a row with `error` and is played again next time; the rest go on.

    Raises:
        StoreError: the store or the file of results cannot be written; for the latter before a game is played.
    """
    resolved = games if isinstance(games, Resolved) else Resolved(list(games))
    queue = Queue(resolved.games, referee, results, limit)
    if queue.left:
        results.require_writable()
    places = {address: number for number, address in enumerate(queue.addresses)}
    for row in (engine or Serial()).play(queue, referee, watcher or Unwatched()):
        results.add(resolved.told(row, places[row["address"]]))
    return [results.rows[address] for address in queue.addresses if address in results.rows]
