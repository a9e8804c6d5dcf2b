"""What scheduling costs a sweep, and what a second worker gives it.

Every game is one poisoned model and its clean twin, small ones, so that the costs of scheduling show: a sweep of games
that train for minutes spends less on it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from timing import Report, Row, Timing, interleave, raw, seconds_of

from bezoar.component import build
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.inventory import entries
from bezoar.plans import plan, read_settings
from bezoar.rows import Results
from bezoar.store import Store
from bezoar.sweep import Engine, Serial, resolve, sweep
from bezoar.workers import Crew

GAME: dict[str, Any] = {
    "game": "robustness",
    "data": {"kind": "digits_in_the_wild", "train": 1000, "test": 100},
    "attack": {"kind": "badnets", "poisons": 50},
    "architecture": {"kind": "small_resnet", "stages": 3},
    "trainer": {"kind": "sgd", "epochs": 3, "batch_size": 32},
    "trusted": 100,
}
REPAIRER: dict[str, Any] = {"kind": "weight_decay", "batch_size": 32}


def measure(*, quick: bool) -> Report:
    """A sweep against its own stages, a finished sweep again, and two workers against one, for games and searches."""
    games, again, shared, searched = (2, 3, 2, 2) if quick else (50, 200, 16, 4)
    threads = torch.get_num_threads()
    rows = [overhead(games)]
    rows.append(finished(again))
    torch.set_num_threads(1)
    rows.append(workers(shared, 1))
    rows.append(searches(searched, 2 if quick else 10))
    torch.set_num_threads(threads)
    settings = {
        "data": "digits_in_the_wild",
        "train": GAME["data"]["train"],
        "epochs": GAME["trainer"]["epochs"],
        "network": "small_resnet, 3 stages",
        "models_per_game": 2,
        "threads_of_a_worker": 1,
    }
    return Report(settings, rows)


def overhead(count: int) -> Row:
    """How much longer a sweep takes than the stages that it makes; measuring what a model does is no stage."""
    with tempfile.TemporaryDirectory() as folder:
        referee = Referee(Store(Path(folder)))
        games = of_seeds(count)
        games[0].replace(seed=10_000).play(referee)  # the data are made, and libraries loaded
        before = stages(referee)
        wall = seconds_of(lambda: sweep(games, referee, Results(Path(folder) / "rows.jsonl")))
        made = stages(referee) - before
    return Row(
        f"a sweep of {count} games",
        f"{wall:.1f} s",
        f"its stages, added up: {made:.1f} s",
        f"{100 * (wall / made - 1):.1f} % more",
        "5 %",
        {"sweep_seconds": round(wall, 3), "stage_seconds": round(made, 3)},
    )


def stages(referee: Referee) -> float:
    """Seconds that all stages in a store took."""
    return sum(float(one.record["seconds"]) for one in entries(referee.store))


def finished(count: int) -> Row:
    """How long the command takes when every game has its row; all rows hold the one result that was measured."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        grid = write_grid(home, count)
        games, referee = plan(read_settings(grid)), Referee(Store(home))
        (row,) = sweep(games[:1], referee, Results(home / "one.jsonl"))
        copies = [{**row, "address": game.address(referee), "game": game.identity()} for game in games]
        (home / "rows.jsonl").write_text("".join(json.dumps(copy) + "\n" for copy in copies))
        command = [sys.executable, "-m", "bezoar", "sweep", str(grid), "--results", str(home / "rows.jsonl")]
        environment = {**os.environ, "BEZOAR_HOME": folder}

        def run() -> None:
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

        times = Timing(tuple(seconds_of(run) for _ in range(3)))
    return Row(
        f"`bezoar sweep` of {count} finished games",
        f"{times.median:.2f} s",
        "",
        "",
        "5 s",
        {"seconds": [round(second, 3) for second in times.seconds]},
    )


def workers(count: int, repeats: int) -> Row:
    """The same games by one worker and by two, each of one thread, with the start and the end of Ray."""

    def by(number: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            referee = Referee(Store(Path(folder)))
            results = Results(Path(folder) / "rows.jsonl")
            return seconds_of(lambda: sweep(of_seeds(count), referee, results, engine=Crew(number)))

    times = interleave({"two workers": lambda: by(2), "one worker": lambda: by(1)}, repeats)
    two, one = times["two workers"], times["one worker"]
    return Row(
        f"{count} games by two workers",
        f"{two.median:.1f} s",
        f"by one: {one.median:.1f} s",
        f"{one.median / two.median:.2f}x (best {one.best / two.best:.2f}x)",
        "1.5x",
        raw(two, one),
    )


def searches(count: int, steps: int) -> Row:
    """The searches of several repairs (20 settings each) by two workers of one thread and by this process alone."""
    (game,) = of_seeds(1)
    games = [game.replace(repairer={**REPAIRER, "steps": steps + number}) for number in range(count)]

    def by(engine: Engine) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return seconds_of(lambda: resolve(games, True, Referee(Store(Path(folder))), engine=engine))

    times = interleave({"two workers": lambda: by(Crew(2)), "this process": lambda: by(Serial())}, 1)
    two, one = times["two workers"], times["this process"]
    return Row(
        f"searches for {count} repairs by two workers",
        f"{two.median:.1f} s",
        f"by one process: {one.median:.1f} s",
        f"{one.median / two.median:.2f}x (best {one.best / two.best:.2f}x)",
        "1.5x",
        raw(two, one),
    )


def of_seeds(count: int) -> list[Game]:
    """Games that share no model."""
    settings = {name: value for name, value in GAME.items() if name != "game"}
    return [build(Game, {**settings, "kind": GAME["game"], "seed": seed}) for seed in range(count)]


def write_grid(folder: Path, count: int) -> Path:
    """The same games as a settings file."""
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({**GAME, "grid": {"seed": {"count": count}}}))
    return path
