"""What a kill, a full disk or damage leaves behind, and that the same command then finishes with the same result."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from world import ROBUSTNESS, WORLD

from bezoar.component import build
from bezoar.errors import StoreError, StoreWarning
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.rows import Results
from bezoar.store import Store
from bezoar.sweep import sweep


def command(path: Path, rows: Path) -> list[str]:
    script = (
        "import sys, torch; torch.set_num_threads(2); from bezoar.cli import main;"
        f"sys.argv = ['bezoar', 'sweep', {str(path)!r}, '--results', {str(rows)!r}, '--json']; main()"
    )
    return [sys.executable, "-c", script]


def without_time(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if name not in ("seconds", "provenance")}


@pytest.mark.parametrize("stage", ["train", "repair"])
def test_after_kill_9_the_same_command_finishes_with_the_same_result(stage: str, tmp_path: Path, home: Path) -> None:
    """The stages made before the kill are found again: only the one in flight is redone."""
    path = tmp_path / "sweep.yaml"
    small = {"data": {**WORLD["data"], "train": 800}, "trainer": {**WORLD["trainer"], "epochs": 1}}
    path.write_text(yaml.safe_dump({**ROBUSTNESS, **small, "grid": {"seed": [7]}}))
    homes = {name: tmp_path / name for name in ("killed", "whole")}
    undisturbed = subprocess.run(
        command(path, tmp_path / "whole.jsonl"),
        env={**os.environ, "BEZOAR_HOME": str(homes["whole"])},
        capture_output=True,
        text=True,
        check=True,
    )
    run = subprocess.Popen(
        command(path, tmp_path / "killed.jsonl"),
        env={**os.environ, "BEZOAR_HOME": str(homes["killed"])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = {"train": 2, "repair": 4}[stage]  # data and poison; then both models
    deadline = time.monotonic() + 120
    while len(made(homes["killed"])) < before and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    survivors = made(homes["killed"])
    assert len(survivors) >= before
    again = subprocess.run(
        command(path, tmp_path / "killed.jsonl"),
        env={**os.environ, "BEZOAR_HOME": str(homes["killed"])},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(text.stdout)["rows"] for text in (again, undisturbed)]
    assert [without_time(row) for row in rows[0]] == [without_time(row) for row in rows[1]]
    kept = made(homes["killed"])
    assert all(kept[folder] == when for folder, when in survivors.items()), "a finished stage was made again"


def made(home: Path) -> dict[str, int]:
    """Address -> modification time of every finished stage."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (home / "store").glob("??/*/facts.json")}


def in_process(home: Path, threads: int = 2) -> list[dict[str, object]]:
    """Play a small sweep in a store and keep its rows beside it."""
    small = {"data": {**WORLD["data"], "train": 800}, "trainer": {**WORLD["trainer"], "epochs": 1}}
    settings = {name: value for name, value in {**ROBUSTNESS, **small}.items() if name != "game"}
    games = [build(Game, {**settings, "kind": "robustness", "seed": seed}) for seed in (7, 8)]
    torch.set_num_threads(threads)
    return [without_time(row) for row in sweep(games, Referee(Store(home)), Results(home / "rows.jsonl"))]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """The rows of a sweep that nothing befell."""
    return in_process(tmp_path_factory.mktemp("undisturbed"))


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
    Referee(Store(tmp_path)).splits(
        build(Game, {**WORLD, "kind": "robustness", "data": {**WORLD["data"], "train": 800}}).data
    )
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
    what: str, undisturbed: list[dict[str, object]], tmp_path: Path
) -> None:
    """Every entry of a finished sweep is damaged, and its rows are lost."""
    assert in_process(tmp_path) == undisturbed
    (tmp_path / "rows.jsonl").unlink()
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
