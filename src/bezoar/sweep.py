"""Many games: one result row each, resumable, with the repairers tuned first where a settings file asks for it.

An engine plays them: one after another (`Serial`), or several at once on one machine or a cluster (`bezoar.workers`).
Whatever plays them, the rows are the same; several sweeps may write into one file of results, and none loses a row.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
import time
import traceback
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from filelock import FileLock

import bezoar
from bezoar.errors import BezoarError, SettingError, StoreError
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.store import write_whole
from bezoar.tuning import FOLDS, require_searchable, tuned

Row = dict[str, Any]
"""What a game gave: address, game, result or error, seconds, provenance."""


def resolve(games: Sequence[Game], wanted: bool, referee: Referee) -> list[Game]:
    """The games of a settings file, their repairers with the settings that ``tuned: true`` asks for.

    Games that differ in attack, target, poison rate or seed alone share one search, through the store.

    Raises:
        SettingError: a game has no repairer to tune.
    """
    if not wanted:
        return list(games)
    return [game.replace(repairer=tuned(game, referee).repairer) for game in require_tunable(games)]


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


class Results:
    """Rows of a sweep, one per game and keyed by its address: a file of JSON lines, rewritten as a whole.

    Several processes may add to one file; none loses what another has written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = self._read()

    def _read(self) -> dict[str, Row]:
        if not self.path.is_file():
            return {}
        try:
            rows = [json.loads(line) for line in self.path.read_text().splitlines() if line.strip()]
            return {row["address"]: row for row in rows}
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{self.path}: this is no file of result rows; move it away or name another one") from None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read ({error.strerror})") from None

    def add(self, row: Row) -> None:
        """Keep a row and write the file as a whole; a failure does not take the place of another process's result.

        Raises:
            StoreError: the file cannot be written; the old one is left as it was.
        """
        with self._alone():
            self.refresh()
            if "result" in row or not self.has(row["address"]):
                self.rows[row["address"]] = row
            write_whole(self.path, "".join(json.dumps(each, sort_keys=True) + "\n" for each in self.rows.values()))

    def refresh(self) -> None:
        """See what other processes have written meanwhile."""
        self.rows |= self._read()

    def has(self, address: str) -> bool:
        """Whether a game has a result; one that failed has none, and is to be played again."""
        return "result" in self.rows.get(address, {})

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Keep other processes from writing the file."""
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), fallback_to_soft=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(poll_interval=0.05)
        except (OSError, NotImplementedError):  # no locks, or a folder that cannot be written, as the writing will say
            yield
            return
        try:
            yield
        finally:
            with suppress(OSError):
                Path(lock.lock_file).unlink()
            lock.release()


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
    games: Sequence[Game],
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
        StoreError: the store or the file of results cannot be written.
    """
    queue = Queue(games, referee, results)
    for row in (engine or Serial()).play(queue, referee, watcher or Unwatched()):
        results.add(row)
    return [results.rows[address] for address in queue.addresses]


def expected_seconds(games: Sequence[Game], rows: Iterable[dict[str, Any]]) -> float | None:
    """How long games will take by rows of games like them, for each model that they train; None without such a row.

    Like means the same game, player, data and architecture. Rows whose models had been trained before are quicker
    than new ones, so it is a guess from below.
    """
    seen: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if "result" in row:
            seen.setdefault(_likeness(row["game"]), []).append(float(row["seconds"]) / _models(row["game"]))
    wanted = [(_likeness(game.identity()), _models(game.identity())) for game in games]
    if any(likeness not in seen for likeness, _ in wanted):
        return None
    return math.fsum(models * math.fsum(seen[likeness]) / len(seen[likeness]) for likeness, models in wanted)


def _likeness(game: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of a game, of the player that it puts to the test, of its data and of its architecture."""
    player = game.get("repairer") or game.get("detector") or {}
    return tuple(str(part.get("kind", "")) for part in (game, player, game["data"], game["architecture"]))


def _models(game: Mapping[str, Any]) -> int:
    """How many models a game looks at."""
    poisoned = int(game.get("models", 1))
    return poisoned + int(game.get("clean") or poisoned)


def provenance(device: torch.device) -> dict[str, Any]:
    """What a number depends on besides its settings."""
    return {
        "bezoar": bezoar.__version__,
        "commit": commit_of(Path(__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }


def commit_of(package: Path) -> str:
    """The commit of the checkout that a package runs from, marked if the package is changed; empty outside one.

    What lies beside the package does not count: a sweep that writes its rows into the checkout changes no code.
    """
    commit = _git(package, "describe", "--always", "--abbrev=12", "--exclude=*")
    return f"{commit}-dirty" if commit and _git(package, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *words: str) -> str:
    """What git prints, or an empty text where there is no git, no checkout or no answer."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
