"""What a killed run leaves behind, and that the same command then finishes with the same result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from world import ROBUSTNESS, WORLD


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
