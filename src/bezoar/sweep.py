"""Many games: one result row each, resumable, with the repairers tuned first where a settings file asks for it."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import bezoar
from bezoar.errors import BezoarError, SettingError, StoreError
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.store import write_whole
from bezoar.tuning import FOLDS, require_searchable, tuned


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
    """Rows of a sweep, one per game and keyed by its address: a file of JSON lines, rewritten as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        if path.is_file():
            try:
                rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
                self.rows = {row["address"]: row for row in rows}
            except (ValueError, KeyError, TypeError):
                raise StoreError(f"{path}: this is no file of result rows; move it away or name another one") from None

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row and write the file as a whole.

        Raises:
            StoreError: the file cannot be written; the old one is left as it was.
        """
        self.rows[row["address"]] = row
        write_whole(self.path, "".join(json.dumps(each, sort_keys=True) + "\n" for each in self.rows.values()))


def play(game: Game, referee: Referee) -> dict[str, Any]:
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


def sweep(games: Sequence[Game], referee: Referee, results: Results) -> Iterator[dict[str, Any]]:
    """Play the games whose rows do not exist yet, and yield every game's row in order.

    A game that fails with a message for the user is kept as a row with `error` instead of `result`
    and is played again next time; the rest go on.
    """
    for game in games:
        address = game.address(referee)
        row = results.rows.get(address)
        if row is None or "error" in row:
            try:
                row = play(game, referee)
            except StoreError:
                raise
            except BezoarError as error:
                row = {"address": address, "game": game.identity(), "error": str(error)}
            results.add(row)
        yield row


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
