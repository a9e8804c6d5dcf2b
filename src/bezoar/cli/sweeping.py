"""`bezoar sweep`: the plan of a grid, its games by one engine or another, and how it stands meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bezoar.cli.console import Bars, find_device, in_bytes, in_time, make_referee, print_json, print_table, stdout
from bezoar.cli.scoreboard import Scoreboard, Titles, headline
from bezoar.errors import SettingError
from bezoar.forecast import expected_bytes, expected_seconds
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.inventory import used_since
from bezoar.plans import PACKAGED, SettingsFile, plan, read_settings
from bezoar.rows import Results, Row
from bezoar.slices import Slice, TimeUpError
from bezoar.sweep import Engine, Queue, Serial, require_tunable, resolve
from bezoar.sweep import sweep as play_all
from bezoar.workers import Crew


def make_engine(
    device: str, *, workers: int | None, threads: int | None, address: str | None, gpu_share: float | None
) -> Engine:
    """What plays the games: this process, or several workers through Ray."""
    if workers is None and address is None:
        if threads is not None:
            torch.set_num_threads(threads)
        return Serial()
    if ":" in device:
        raise SettingError(f"--device: Ray chooses the card of each worker; say {device.partition(':')[0]!r}")
    if threads is None:
        threads = 1 if address is not None else max(1, (os.cpu_count() or 1) // (workers or 1))
    if gpu_share is None:
        cards = torch.cuda.device_count() if find_device(device).type == "cuda" else 0
        gpu_share = min(1.0, cards / (workers or 1)) if address is None else float(cards > 0)
    return Crew(workers, threads, gpu_share, address)


def sweep(
    source: str,
    changes: Sequence[str],
    *,
    results: Path | None,
    dry_run: bool,
    minutes: float | None,
    preset: str | None,
    engine: Engine,
    data: list[Path],
    device: str,
    as_json: bool,
) -> None:
    """Play the games of a grid that have no row yet."""
    limit = Slice(minutes)
    described = read_settings(source, preset)
    bars = Bars()
    referee = make_referee(device, data, bars)
    kept = Results(results or Path(f"{source if source in PACKAGED else Path(source).with_suffix('')}.jsonl"))
    games = planned(described, changes)
    if dry_run:
        missing = list(Queue(games, referee, kept).left.values())
        document = plan_of(games, missing, referee, kept.rows.values(), kept.path)
        print_plan({**document, "tuned": described.tuned}, as_json=as_json)
        return
    started = time.time()
    rows = played(games, referee, kept, engine, bars, limit=limit, searched=described.tuned)
    left = len(games) - len(rows)
    used = used_since(referee.store, started)
    size = sum(one.size for one in used)
    if as_json:
        store = {"entries": len(used), "bytes": size}
        print_json({"results": str(kept.path), "rows": rows, "left": left, "store": store})
        return
    titles = Titles(row["game"] for row in rows)
    print_table("games", ["game", "result"], [[titles(row["game"]), headline(row)] for row in rows])
    failed = sum("error" in row for row in rows)
    stdout.print(f"{len(rows)} rows, {failed} of them errors: {kept.path}", highlight=False)
    stdout.print(f"For tables, curves and figures: bezoar report {kept.path} --out DIR", highlight=False)
    if used:
        stdout.print(f"{len(used):,} entries of the store took part, {in_bytes(size)}.", highlight=False)
    print_left(left)


def planned(described: SettingsFile, changes: Sequence[str]) -> list[Game]:
    """The games of a settings file, before the search that it may ask for; every game is checked."""
    games = plan(described, changes)
    return list[Game](require_tunable(games)) if described.tuned else games


def played(
    games: Sequence[Game],
    referee: Referee,
    kept: Results,
    engine: Engine,
    bars: Bars,
    *,
    limit: Slice,
    searched: bool,
) -> list[Row]:
    """Play games under the eyes of the person at the terminal, in the time that there is.

    Returns:
        In order the rows of those that have one; none where the time is up before their settings are found.
    """
    if searched:  # a search takes long, and would be for nothing
        kept.require_writable()
    try:
        resolved = resolve(games, searched, referee, engine=engine, limit=limit)
    except TimeUpError:
        return []
    board = Scoreboard(resolved.games, len(Queue(resolved.games, referee, kept).left))
    with bars.shown(board):
        return play_all(resolved, referee, kept, engine=engine, watcher=board, limit=limit)


def print_left(left: int) -> None:
    """Say to a person what the time did not suffice for, if anything."""
    if left:
        said = "1 game is left" if left == 1 else f"{left} games are left"
        stdout.print(f"The time is up and {said}; the same command goes on from there.", highlight=False)


def plan_of(
    games: Sequence[Game], missing: Sequence[Game], referee: Referee, rows: Iterable[Row], where: Path
) -> dict[str, Any]:
    """What playing the missing of some games would take: room by their models, and time as far as rows can tell."""
    return {
        "games": [game.describe() for game in games],
        "to_play": len(missing),
        "models": len(set[str]().union(*(game.trainings() for game in missing))),
        "models_unless_shared": sum(len(game.trainings()) for game in missing),
        "expected_seconds": expected_seconds(missing, rows),
        "expected_bytes": expected_bytes(missing, referee),
        "results": str(where),
    }


def print_plan(planned: Mapping[str, Any], *, as_json: bool) -> None:
    """A plan for a person, or as one document."""
    if as_json:
        print_json(planned)
        return
    to_play, size, seconds = (planned[name] for name in ("to_play", "expected_bytes", "expected_seconds"))
    stdout.print(
        f"{len(planned['games'])} games, {to_play} of them to play; rows go to {planned['results']}", highlight=False
    )
    if to_play:
        apart = f"{planned['models_unless_shared']:,} if none were shared"
        stdout.print(
            f"They need {planned['models']:,} models ({apart}), about {in_bytes(size)}, less those in the store.",
            highlight=False,
        )
    if to_play and seconds is not None:
        stdout.print(f"By the rows that exist, about {in_time(seconds)} on a machine like theirs.", highlight=False)
    elif to_play:
        stdout.print("How long it takes is not known yet: some of these players have no rows.", highlight=False)
    if planned.get("tuned"):
        stdout.print("Their repairers are tuned first, which may turn games to play into rows that exist.")
