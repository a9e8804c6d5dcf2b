"""`bezoar sweep`: the plan of a grid, its games by one engine or another, and how it stands meanwhile."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bezoar.cli.console import Bars, find_device, in_bytes, in_time, make_referee, print_json, print_table, stdout
from bezoar.cli.scoreboard import Scoreboard, headline, title
from bezoar.component import canonical
from bezoar.errors import SettingError
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.inventory import bytes_of_a_model, used_since
from bezoar.plans import PACKAGED, SettingsFile, plan, read_settings
from bezoar.rows import Results, Row
from bezoar.sweep import Engine, Queue, Resolved, Serial, expected_seconds, require_tunable, resolve
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
    preset: str | None,
    engine: Engine,
    data: list[Path],
    device: str,
    as_json: bool,
) -> None:
    """Play the games of a grid that have no row yet."""
    described = read_settings(source, preset)
    bars = Bars()
    referee = make_referee(device, data, bars)
    kept = Results(results or Path(f"{source if source in PACKAGED else Path(source).with_suffix('')}.jsonl"))
    games = games_to_play(described, changes, referee, kept, dry_run=dry_run)
    if dry_run:
        missing = list(Queue(games.games, referee, kept).left.values())
        document = plan_of(games.games, missing, referee, kept.rows.values(), kept.path)
        print_plan({**document, "tuned": described.tuned}, as_json=as_json)
        return
    started = time.time()
    rows = watched(games, referee, kept, engine, bars)
    used = used_since(referee.store, started)
    size = sum(one.size for one in used)
    if as_json:
        print_json({"results": str(kept.path), "rows": rows, "store": {"entries": len(used), "bytes": size}})
        return
    print_table("games", ["game", "result"], [[title(row["game"]), headline(row)] for row in rows])
    failed = sum("error" in row for row in rows)
    stdout.print(f"{len(rows)} rows, {failed} of them errors: {kept.path}", highlight=False)
    stdout.print(f"For tables, curves and figures: bezoar report {kept.path} --out DIR", highlight=False)
    if used:
        stdout.print(f"{len(used):,} entries of the store took part, {in_bytes(size)}.", highlight=False)


def games_to_play(
    described: SettingsFile, changes: Sequence[str], referee: Referee, kept: Results, *, dry_run: bool
) -> Resolved:
    """The games of a settings file; a plan of them shall not wait for the search that it may ask for."""
    games = plan(described, changes)
    if not dry_run:
        if described.tuned:  # a search takes long, and would be for nothing
            kept.require_writable()
        return resolve(games, described.tuned, referee)
    return Resolved(list[Game](require_tunable(games)) if described.tuned else games)


def watched(games: Resolved, referee: Referee, kept: Results, engine: Engine, bars: Bars) -> list[Row]:
    """Play games under the eyes of the person at the terminal; the rows of all of them, in order."""
    board = Scoreboard(len(Queue(games.games, referee, kept).left))
    with bars.shown(board):
        return play_all(games, referee, kept, engine=engine, watcher=board)


def plan_of(
    games: Sequence[Game], missing: Sequence[Game], referee: Referee, rows: Iterable[Row], where: Path
) -> dict[str, Any]:
    """What playing the missing of some games would take, as far as rows and models that exist can tell."""
    return {
        "games": [game.describe() for game in games],
        "to_play": len(missing),
        "models": len(set[str]().union(*(game.trainings() for game in missing))),
        "models_unless_shared": sum(len(game.trainings()) for game in missing),
        "expected_seconds": expected_seconds(missing, rows),
        "expected_bytes": _expected_bytes(missing, referee),
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
        room = "" if size is None else f", about {in_bytes(round(size))}"
        apart = f"{planned['models_unless_shared']:,} if none were shared"
        stdout.print(
            f"They need {planned['models']:,} models{room} ({apart}), less those in the store.", highlight=False
        )
    if to_play and seconds is not None:
        stdout.print(f"By the rows that exist, about {in_time(seconds)} on a machine like theirs.", highlight=False)
    if planned.get("tuned"):
        stdout.print("Their repairers are tuned first, which may turn games to play into rows that exist.")


def _expected_bytes(games: Sequence[Game], referee: Referee) -> float | None:
    """How much the models of games will take, by models in the store; None where one of an architecture is missing."""
    models: dict[str, set[str]] = {}
    architectures: dict[str, dict[str, Any]] = {}
    for game in games:
        key = canonical(game.architecture.identity())
        architectures[key] = game.architecture.identity()
        models.setdefault(key, set()).update(game.trainings())
    sizes = {key: bytes_of_a_model(referee.store, recipe) for key, recipe in architectures.items()}
    known = [len(models[key]) * size for key, size in sizes.items() if size is not None]
    return math.fsum(known) if len(known) == len(sizes) else None
