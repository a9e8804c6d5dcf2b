"""Sweeps on a real local Ray: the same rows as one process gives, whatever happens to the workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from deadly import Broken, Deadly, DeadlyInTraining, DeadlyOnce, made

from bezoar.component import build
from bezoar.errors import SettingError, StoreWarning
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.rows import Results, Row
from bezoar.slices import Slice
from bezoar.store import TENSORS, Store
from bezoar.sweep import Queue, attempt, sweep
from bezoar.workers import Crew

SMALL: dict[str, Any] = {
    "kind": "robustness",
    "data": {"kind": "digits_in_the_wild", "train": 400, "test": 60},
    "attack": {"kind": "badnets", "poisons": 20},
    "architecture": {"kind": "small_resnet", "stages": 1},
    "trainer": {"kind": "sgd", "epochs": 1, "batch_size": 32},
    "repairer": {"kind": "weight_decay", "steps": 4, "batch_size": 16},
    "trusted": 40,
    "every": 2,
    "folds": 2,
}
SEEDS = (0, 1, 2, 3)
TWO = ("--workers", "2", "--threads", "1")
GAMES = [build(Game, {**SMALL, "seed": seed}) for seed in SEEDS]


class Notes:
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Game]] = []

    def started(self, game: Game) -> None:
        self.said.append(("started", game))

    def finished(self, game: Game, row: Row) -> None:
        assert row["game"] == game.identity()
        self.said.append(("finished", game))


def measured(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows without what differs from run to run."""
    return [{name: value for name, value in row.items() if name not in ("seconds", "provenance")} for row in rows]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Row]]:
    """The rows of an undisturbed sweep in one process, on as many threads as a worker has."""
    folder = tmp_path_factory.mktemp("alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield sweep(GAMES, Referee(Store(folder)), Results(folder / "rows.jsonl"))
    torch.set_num_threads(threads)


def test_two_workers_give_the_rows_of_one_process_and_failures_are_kept(
    alone: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # where workers find 'deadly'
    store = Store(tmp_path)
    damaged = Referee(store)
    damaged.splits(GAMES[0].data)
    (entry,) = store.folders()
    content = bytearray((entry / TENSORS).read_bytes())
    content[-1] ^= 1
    (entry / TENSORS).write_bytes(bytes(content))
    wrong = GAMES[0].replace(attack={"kind": "badnets", "poisons": 4000})
    odd = [Broken.model_validate({**SMALL, "seed": 90}), Deadly.model_validate({**SMALL, "seed": 91})]
    once = DeadlyOnce.model_validate({**SMALL, "seed": 5, "mark": str(tmp_path / "mark")})
    amid = DeadlyInTraining.model_validate({**SMALL, "seed": 6, "mark": str(tmp_path / "noted")})
    notes = Notes()
    with pytest.warns(StoreWarning, match="has changed on disk.*will be made again"):
        rows = sweep(
            [*GAMES, wrong, *odd, once, amid], damaged, Results(tmp_path / "rows.jsonl"), engine=Crew(2), watcher=notes
        )
    assert capsys.readouterr().out == "", "stdout is for the result alone"
    assert measured(rows[:4]) == measured(alone)
    assert "attack.poisons: 4000 is more than" in rows[4]["error"]
    assert rows[5]["error"] == "KeyError: 'missing' (deadly.py, line 32)"
    assert rows[6]["error"].startswith("its worker died, and so did those that tried again")
    assert (tmp_path / "mark").exists()
    for row, seed in ((rows[7], 5), (rows[8], 6)):
        whole = attempt(build(Game, {**SMALL, "seed": seed}), Referee(Store(tmp_path / "other")))
        assert row["result"] == whole["result"], "a game whose worker was killed has another result"
    before, after = json.loads((tmp_path / "noted").read_text()), made(store, "6")
    assert sorted(stage for stage, _ in before.values()) == ["collect", "train"], "killed amid the second training"
    assert sorted(stage for stage, _ in after.values()) == ["collect", "repair", "train", "train"]
    assert {address: list(after[address]) for address in before} == before, "what was finished was made again"
    assert [row["provenance"]["threads"] for row in rows if "result" in row] == [1] * 6
    assert sorted(game.seed for said, game in notes.said if said == "finished") == [0, 0, 1, 2, 3, 5, 6, 90, 91]
    assert all(notes.said.index(("started", game)) < notes.said.index(("finished", game)) for game in GAMES)


def test_after_a_slice_no_worker_is_given_a_game_and_those_in_play_are_finished(
    alone: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is up when the first game has been handed out, so that the second worker gets none."""
    referee, kept, limit = Referee(Store(tmp_path)), Results(tmp_path / "rows.jsonl"), Slice(1e-9)
    rows = sweep(GAMES, referee, kept, engine=Crew(2), limit=limit)
    assert measured(rows) == measured(alone)[:1]
    assert Results(kept.path).rows == {row["address"]: row for row in rows}
    monkeypatch.setattr("bezoar.workers._ray", lambda _: pytest.fail("Ray is started for nothing"))
    assert sweep(GAMES, referee, kept, engine=Crew(2), limit=limit) == rows


MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from bezoar.cli import main; main()"
"""Ctrl-C counts even where the tests were started in the background, as by a shell's &, which has it ignored."""


def command(path: Path, rows: Path, *more: str) -> list[str]:
    return [sys.executable, "-c", MAIN, "sweep", str(path), "--results", str(rows), "--json", *more]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    game = {name: value for name, value in SMALL.items() if name != "kind"}
    path.write_text(yaml.safe_dump({"game": "robustness", **game, "grid": {"seed": list(SEEDS)}}))
    return path


class Run:
    """A command that has been started, with files for what it prints: Ray's agents keep a pipe open for minutes."""

    def __init__(self, words: list[str], home: Path) -> None:
        self._files = [Path(tempfile.mkstemp(dir=home.parent)[1]) for _ in range(2)]
        with self._files[0].open("w") as answer, self._files[1].open("w") as said:
            environment = {**os.environ, "BEZOAR_HOME": str(home)}
            self.process = subprocess.Popen(words, env=environment, stdout=answer, stderr=said, start_new_session=True)

    def end(self, status: int) -> Printed:
        """Wait for it; it must end with this status."""
        found = self.process.wait(timeout=240)
        printed = Printed(*(file.read_text() for file in self._files))
        assert found == status, printed
        return printed

    def wait_for_row(self, rows: Path) -> None:
        """Wait until it has written its first row."""
        self.wait_until(rows.is_file)

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait for something that it is to do."""
        while self.process.poll() is None:
            if reached():
                return
            time.sleep(0.02)
        pytest.fail(f"it ended too early: {self.end(self.process.returncode)}")


@dataclass(frozen=True)
class Printed:
    """What a command printed."""

    stdout: str
    stderr: str


def of_home(home: Path) -> list[str]:
    """Processes that work on a store, by their environment; two agents of Ray's end minutes after their raylet."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"BEZOAR_HOME={home}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if not line.startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))]


def none_left(home: Path) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not of_home(home):
            return True
        time.sleep(0.2)
    return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_after_kill_9_of_the_driver_nobody_works_on_and_the_same_command_finishes(
    alone: list[Row], settings: Path, tmp_path: Path
) -> None:
    home, rows = tmp_path / "home", tmp_path / "rows.jsonl"
    words = command(settings, rows, *TWO)
    run = Run(words, home)
    run.wait_for_row(rows)
    run.process.kill()
    run.end(-signal.SIGKILL)
    assert none_left(home), of_home(home)
    survivors = rows.read_text().splitlines()
    again = Run(words, home).end(0)
    assert measured(json.loads(again.stdout)["rows"]) == measured(alone)
    assert set(survivors) <= set(rows.read_text().splitlines()), "a game with a row was played again"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize(
    ("sent", "more"),
    [(signal.SIGINT, ()), (signal.SIGINT, TWO), (signal.SIGTERM, ()), (signal.SIGTERM, TWO)],
    ids=["ctrl_c", "ctrl_c-workers", "sigterm", "sigterm-workers"],
)
def test_a_sweep_that_is_told_to_stop_says_so_in_one_message_and_nobody_works_on(
    sent: signal.Signals, more: tuple[str, ...], settings: Path, tmp_path: Path
) -> None:
    """Ctrl-C as a terminal does it, to every process of the group; SIGTERM to the driver alone."""
    home, rows = tmp_path / "home", tmp_path / "rows.jsonl"
    run = Run(command(settings, rows, *more), home)
    run.wait_for_row(rows)
    (os.killpg if sent == signal.SIGINT else os.kill)(run.process.pid, sent)
    printed = run.end(128 + sent)
    assert printed.stdout == ""
    *lines, last = printed.stderr.splitlines()
    assert last == "bezoar: stopped; what is finished is kept, and the same command goes on from there"
    assert [line for line in lines if " of 4  robustness" not in line] == [], "it says more than its progress"
    assert none_left(home), of_home(home)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_workers_are_stopped_amid_a_game_that_would_take_hours(
    sent: signal.Signals, settings: Path, tmp_path: Path
) -> None:
    """The driver waits inside of Ray, and is told twice, as by `timeout`: once alone, once with its group."""
    home = tmp_path / "home"
    endless = yaml.safe_load(settings.read_text())
    endless["trainer"]["epochs"] = 10**6
    settings.write_text(yaml.safe_dump(endless))
    run = Run(command(settings, tmp_path / "rows.jsonl", *TWO), home)
    run.wait_until(lambda: any((home / "store" / "claims").glob("*")))
    os.kill(run.process.pid, sent)
    os.killpg(run.process.pid, sent)
    printed = run.end(128 + sent)
    # Ray, whose processes were told as well, may log that it lost them before they are ended
    said = [line for line in printed.stderr.splitlines() if "task_manager.cc" not in line]
    assert said == ["bezoar: stopped; what is finished is kept, and the same command goes on from there"]
    assert none_left(home), of_home(home)


def test_two_drivers_on_one_file_lose_no_row(alone: list[Row], settings: Path, tmp_path: Path) -> None:
    home, rows = tmp_path / "home", tmp_path / "rows.jsonl"
    for run in [Run(command(settings, rows, "--threads", "1"), home) for _ in range(2)]:
        assert measured(json.loads(run.end(0).stdout)["rows"]) == measured(alone)
    assert sorted(json.loads(line)["game"]["seed"] for line in rows.read_text().splitlines()) == list(SEEDS)
    assert [path.name for path in tmp_path.glob(".*")] == [], "a lock was left behind"


ROW = {"game": {"kind": "robustness@1"}, "result": {}}


def add_rows(path: str, who: int) -> None:
    for number in range(20):
        Results(Path(path)).add({**ROW, "address": f"{who}-{number}"})


def test_many_processes_that_write_one_file_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        list(pool.map(add_rows, [str(path)] * 4, range(4)))
    assert set(Results(path).rows) == {f"{who}-{number}" for who in range(4) for number in range(20)}


def test_a_failure_does_not_take_the_place_of_a_result_and_a_lost_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    one, other = Results(path), Results(path)
    game = {"game": {"kind": "robustness@1"}}
    first = {"address": "a", **game, "result": {"n": 1}}
    failed = {"address": "b", **game, "error": "too much"}
    one.add(first)
    other.add({"address": "a", **game, "error": "its worker died"})
    other.add(failed)
    assert Results(path).rows == {"a": first, "b": failed}
    other.add({"address": "b", **game, "result": {"n": 2}})
    path.unlink()
    other.add({"address": "c", **game, "result": {"n": 3}})
    assert list(Results(path).rows) == ["a", "b", "c"]


def test_a_cluster_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"workers: no Ray answers at '127\.0\.0\.1:1'"):
        sweep(GAMES, Referee(Store(tmp_path)), Results(tmp_path / "rows.jsonl"), engine=Crew(address="127.0.0.1:1"))


def test_games_are_handed_out_so_that_no_worker_waits_for_a_model_another_trains(tmp_path: Path) -> None:
    """Two repairs of each of two models: the second game is one of the other model."""
    games = [build(Game, {**SMALL, "seed": seed, "every": every}) for seed in (0, 1) for every in (2, 4)]
    queue = Queue(games, Referee(Store(tmp_path)), Results(tmp_path / "rows.jsonl"))
    first = queue.take()
    second = queue.take([game for game in games if game is first])
    assert [first, second] == [games[0], games[2]]
    assert queue.take(games) is games[1], "where all would wait, the order stands"
    assert queue.take() is games[3]
    assert queue.take() is None
    seen = {**SMALL, "kind": "detectability", "models": 2}
    seen = {name: value for name, value in seen.items() if name not in ("repairer", "every", "folds")}
    games = [
        build(
            Game,
            {**seen, "attack": {"kind": "badnets", "poisons": m}, "detector": {"kind": "neural_cleanse", "steps": n}},
        )
        for m in (10, 20)
        for n in (1, 2)
    ]
    queue = Queue(games, Referee(Store(tmp_path)), Results(tmp_path / "rows.jsonl"))
    first = queue.take()
    assert first is games[0]
    assert queue.take([first]) is games[2], "of another attack only the clean models are shared"
