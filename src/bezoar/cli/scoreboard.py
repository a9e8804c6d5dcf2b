"""How a sweep stands, on stderr: a live table in a terminal, one line for each game elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from bezoar.cli.console import in_time, say, stderr
from bezoar.games.game import Game
from bezoar.records import Estimate
from bezoar.report.groups import differing, flat, kind_of
from bezoar.rows import Row

SHOWN = 6
"""How many finished games stay in view."""

PLAYERS = ("certifier", "sanitizer", "repairer", "detector", "guard")
"""The roles that a game may have beside the attack, as a title names them."""


class Scoreboard:
    """Watches a sweep.

    Args:
        games: of the sweep, those that have a row included.
        total: how many of them there are to play.
    """

    def __init__(self, games: Iterable[Game], total: int) -> None:
        self._titles = Titles(game.identity() for game in games)
        self._total = total
        self._started = time.monotonic()
        self._running: list[tuple[Game, float]] = []
        self._latest: deque[tuple[str, str]] = deque(maxlen=SHOWN)
        self._done = self._failed = 0

    def started(self, game: Game) -> None:
        """A game is being played from now on."""
        self._running.append((game, time.monotonic()))

    def finished(self, game: Game, row: Row) -> None:
        """A game has its row."""
        self._running = [(one, since) for one, since in self._running if one is not game]
        self._done += 1
        self._failed += "error" in row
        name, result = self._titles(row["game"]), headline(row)
        self._latest.append((name, result))
        if not stderr.is_terminal:
            say(f"{self._done} of {self._total}  {name}: {result}  ({self._left()})")

    def _left(self) -> str:
        spent, left = time.monotonic() - self._started, self._total - self._done
        ahead = f", about {in_time(spent / self._done * left)} left" if self._done and left > 0 else ""
        return f"{in_time(spent)}{ahead}"

    def __rich__(self) -> Table:
        """The table as it stands now."""
        failures = f", {self._failed} failed" if self._failed else ""
        table = Table(
            "game",
            "result",
            title=f"{self._done} of {self._total} games{failures}; {self._left()}",
            title_justify="left",
            expand=True,
        )
        for name, result in list(self._latest):  # the terminal is drawn by another thread
            table.add_row(Text(name, overflow="fold"), Text(result, overflow="fold"))
        for game, since in list(self._running):
            waited = in_time(time.monotonic() - since)
            table.add_row(Text(self._titles(game.identity()), style="bold"), Text(f"playing, {waited}", style="dim"))
        return table


def title(game: Mapping[str, Any]) -> str:
    """A game in a few words: what is played, against which attack, by which player, from which seed."""
    attack, players = game["attack"], [game.get(role) for role in PLAYERS]
    words = [kind_of(game), f"{kind_of(attack)} {attack.get('poisons', '')}".strip()]
    if "transfer" in game:
        words.append(f"{kind_of(game['architecture'])} {game['transfer'].replace('_', ' ')}")
    return ", ".join([*words, *(kind_of(player) for player in players if player), f"seed {game['seed']}"])


class Titles:
    """What games are called where several are shown: by their titles, and by what else those of one title differ in.

    Args:
        games: all that are shown.
    """

    def __init__(self, games: Iterable[Mapping[str, Any]]) -> None:
        alike: dict[str, list[dict[str, Any]]] = {}
        for game in games:
            alike.setdefault(title(game), []).append(flat(game))
        self._told = {name: differing(few) for name, few in alike.items()}

    def __call__(self, game: Mapping[str, Any]) -> str:
        """One of the games."""
        name, settings = title(game), flat(game)
        told = [path for path in self._told.get(name, []) if path in settings]
        return ", ".join([name, *(f"{path.rpartition('.')[2].replace('_', ' ')} {settings[path]}" for path in told)])


def headline(row: Row) -> str:
    """What came of a game, in one line."""
    if "error" in row:
        return f"failed: {row['error']}"
    result = row["result"]
    if "auc" in result:
        return f"ROC AUC {Estimate.from_json(result['auc'])}"
    if "base_rate" in result:
        success, base = (Estimate.from_json(result[name]) for name in ("success", "base_rate"))
        return f"success {success} over {success.n} targets, base rate {base.value:.2f}"
    return _certificates(result) if "drop" in result else _attack(result)


def _certificates(result: Row) -> str:
    """What certificates an attack takes away."""
    twin, suspect = (Estimate.from_json(result[who]["stamped"]["certified"]).value for who in ("twin", "suspect"))
    lost = Estimate.from_json(result["drop"]["certified"])
    return f"stamped images certified {twin:.2f} by the twin, {suspect:.2f} poisoned: {lost} lost"


def _attack(result: Row) -> str:
    """What an attack achieves, and what of that a defence leaves."""
    before = Estimate.from_json(result["suspect"]["attack_success"])
    if "repaired" not in result and "sanitized" in result:
        after = Estimate.from_json(result["sanitized"]["attack_success"])
        return f"attack success {before.value:.2f}, {after.value:.2f} on the rows that are left"
    if "repaired" not in result:
        return f"attack success {before}"
    blind = result["repaired"]["blind"]
    after, lost = (Estimate.from_json(blind[name]).value for name in ("attack_success", "lost"))
    return f"attack success {before.value:.2f}, {after:.2f} after repair (blind), accuracy lost {lost:+.2f}"
