"""What a kill, a full disk or damage leaves behind, and that the same command then finishes with the same result."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from world import CLEANSE, ROBUSTNESS, UNLEARNING, WORLD

from bezoar.component import build
from bezoar.errors import StoreError, StoreWarning
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.rows import Results
from bezoar.store import Store
from bezoar.sweep import sweep


def command(path: Path, rows: Path) -> list[str]:
    script = (
        "import sys, torch; torch.set_num_threads(1); from bezoar.cli import main;"
        f"sys.argv = ['bezoar', 'sweep', {str(path)!r}, '--results', {str(rows)!r}, '--json']; main()"
    )
    return [sys.executable, "-c", script]


def without_time(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if name not in ("seconds", "provenance")}


SMALL = {"data": {**WORLD["data"], "train": 400}, "trainer": {**WORLD["trainer"], "epochs": 1}}
REPAIRER = {**UNLEARNING, "steps": 4, "detector": {**CLEANSE, "steps": 8}}
WHOLE = {**ROBUSTNESS, **SMALL, "repairer": REPAIRER, "grid": {"seed": [7]}}


def finished(path: Path, home: Path) -> list[dict[str, object]]:
    """The rows of a sweep in a process of its own that ends by itself."""
    environment = {**os.environ, "BEZOAR_HOME": str(home)}
    words = command(path, home.with_suffix(".jsonl"))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return [without_time(row) for row in json.loads(done.stdout)["rows"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """The rows of the sweep that is killed elsewhere."""
    path = tmp_path_factory.mktemp("whole") / "sweep.yaml"
    path.write_text(yaml.safe_dump(WHOLE))
    return finished(path, path.with_name("home"))


@pytest.mark.parametrize("stage", ["train", "repair"])
def test_after_kill_9_the_same_command_finishes_with_the_same_result(
    stage: str, whole: list[dict[str, object]], tmp_path: Path
) -> None:
    """The stages made before the kill are found again: only the one in flight is redone."""
    path, home = tmp_path / "sweep.yaml", tmp_path / "killed"
    path.write_text(yaml.safe_dump(WHOLE))
    run = subprocess.Popen(
        command(path, home.with_suffix(".jsonl")),
        env={**os.environ, "BEZOAR_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = {"train": 2, "repair": 4}[stage]  # data and poison; then both models
    deadline = time.monotonic() + 120
    while len(made(home)) < before and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    survivors = made(home)
    assert len(survivors) >= before
    assert finished(path, home) == whole
    kept = made(home)
    assert all(kept[folder] == when for folder, when in survivors.items()), "a finished stage was made again"


def made(home: Path) -> dict[str, int]:
    """Address -> modification time of every finished stage."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (home / "store").glob("??/*/facts.json")}


def in_process(home: Path) -> list[dict[str, object]]:
    """Play a small sweep in a store and keep its rows beside it."""
    settings = {name: value for name, value in {**ROBUSTNESS, **SMALL}.items() if name != "game"}
    settings |= {"repairer": {"kind": "weight_decay", "steps": 4, "batch_size": 16}, "every": 2}
    games = [build(Game, {**settings, "kind": "robustness", "seed": seed}) for seed in (7, 8)]
    return [without_time(row) for row in sweep(games, Referee(Store(home)), Results(home / "rows.jsonl"))]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a sweep was played that nothing befell; only copies of it are touched."""
    home = tmp_path_factory.mktemp("undisturbed")
    in_process(home)
    return home


@pytest.fixture
def undisturbed(calm: Path) -> list[dict[str, object]]:
    """The rows of that sweep."""
    return [without_time(row) for row in Results(calm / "rows.jsonl").rows.values()]


@contextmanager
def full_disk(limit: int) -> Generator[None]:
    """No file may become larger than this, as on a disk that is nearly full; Python then raises OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_a_sweep_with_a_message_and_with_room_it_finishes(
    undisturbed: list[dict[str, object]], tmp_path: Path
) -> None:
    """Data and poison fit, the first model does not: what was made stays, and nothing half-written is left."""
    Referee(Store(tmp_path)).splits(build(Game, {**WORLD, "kind": "robustness", "data": SMALL["data"]}).data)
    with full_disk(400_000), pytest.raises(StoreError, match=r"cannot write the stage 'train'.*free some space"):
        in_process(tmp_path)
    assert not (tmp_path / "rows.jsonl").exists()
    assert list((tmp_path / "store" / "scratch").iterdir()) == []
    kept = made(tmp_path)
    assert len(kept) >= 2
    assert in_process(tmp_path) == undisturbed
    assert {folder: when for folder, when in made(tmp_path).items() if folder in kept} == kept


@pytest.mark.parametrize("what", ["a tensor", "a record"])
def test_whatever_is_damaged_on_disk_is_made_again_and_the_rows_are_the_same(
    what: str, calm: Path, undisturbed: list[dict[str, object]], tmp_path: Path
) -> None:
    """Every entry of a finished sweep is damaged, and its rows are lost."""
    shutil.copytree(calm / "store", tmp_path / "store")
    entries = sorted((tmp_path / "store").glob("??/*"))
    damaged = [entry for entry in entries if what == "a record" or (entry / "tensors.safetensors").is_file()]
    for entry in damaged:
        path = entry / ("facts.json" if what == "a record" else "tensors.safetensors")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content[: len(content) // 2] if what == "a record" else content))
    with pytest.warns(StoreWarning) as caught:
        assert in_process(tmp_path) == undisturbed
    assert len([one for one in caught if "will be made again" in str(one.message)]) >= 5
    assert len(list((tmp_path / "store" / "damaged").iterdir())) >= 5
