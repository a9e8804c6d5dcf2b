"""Sweeps that are killed, told to stop, or begun twice, as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tiny import SEEDS, SMALL, measured

from bezoar.rows import Row

TWO = ("--workers", "2", "--threads", "1")
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
