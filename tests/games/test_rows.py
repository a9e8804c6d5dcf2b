"""Files of result rows: where they may lie, what may stand in them, and that no writer loses a row."""

from __future__ import annotations

import os
import platform
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from world import ROBUSTNESS

from bezoar.errors import StoreError
from bezoar.games.detectability import Detectability
from bezoar.games.robustness import Robustness
from bezoar.report.results import provenance_of
from bezoar.reproduce.experiments import LUKAS
from bezoar.rows import Results, processor, provenance

PROC = pytest.mark.skipif(not Path("/proc/self").exists(), reason="nobody can write into /proc, where there is one")


@pytest.fixture
def unplayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No game is begun."""
    for game in (Detectability, Robustness):
        monkeypatch.setattr(game, "play", lambda *_: pytest.fail("a game was played"))


@pytest.fixture
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables III and V of one game on digits, for a machine without CIFAR-10."""
    folder = tmp_path_factory.mktemp("experiments")
    printed = Path(__file__).parents[2] / "experiments" / LUKAS / "numbers.yaml"
    (folder / "numbers.yaml").write_text(printed.read_text())
    game = {**ROBUSTNESS, "repairer": "weight_decay"}
    for name, tuned in (("repairs", False), ("search", True)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"tuned": tuned, "presets": {"cpu": game}}))
    return folder


def said(answer: Any) -> str:
    """The one message of a refusal."""
    assert answer.exit_code == 2, answer.output
    assert "Traceback" not in answer.stderr
    assert "free some space" not in answer.stderr
    return " ".join(answer.stderr.split())


@pytest.mark.usefixtures("unplayed")
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_folder_is_no_file_of_result_rows(bezoar: Any, tmp_path: Path, dry: tuple[str, ...]) -> None:
    answer = bezoar("sweep", "demo", "--results", tmp_path, *dry)
    assert "this is a folder; name a file in it" in said(answer)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("unplayed")
@pytest.mark.parametrize("last", ["--dry-run", "--draw-only", "--json"])
def test_a_file_is_no_folder_of_result_rows(bezoar: Any, tmp_path: Path, last: str) -> None:
    taken = tmp_path / "rows.jsonl"
    taken.write_text("mine")
    assert "is a file, so nothing can lie below it" in said(bezoar("reproduce", "table3", "--results", taken, last))
    assert taken.read_text() == "mine"


@PROC
@pytest.mark.usefixtures("unplayed")
def test_a_place_that_cannot_be_written_is_refused_before_the_first_game(bezoar: Any, experiments: Path) -> None:
    sweep = said(bezoar("sweep", "demo", "--results", "/proc/nope"))
    assert "/proc/nope: no result rows can be written there" in sweep
    reproduced = said(bezoar("reproduce", "table3", "--experiments", experiments, "--results", "/proc/nope"))
    assert "no result rows can be written there" in reproduced


@PROC
@pytest.mark.usefixtures("unplayed")
def test_nothing_is_searched_for_rows_that_cannot_be_written(bezoar: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bezoar.sweep.tuned", lambda *_: pytest.fail("settings were searched"))
    assert "no result rows can be written" in said(bezoar("reproduce", "table5", "--results", "/proc/nope"))


def test_looking_whether_a_file_can_be_written_leaves_it_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    Results(path).require_writable()
    assert not list(path.parent.iterdir())
    Results(path).add({"address": "a", "game": {"kind": "robustness@1"}, "error": "too much"})
    before = path.read_text()
    Results(path).require_writable()
    assert [(one.name, one.read_text()) for one in path.parent.iterdir()] == [("rows.jsonl", before)]


def test_a_device_is_not_replaced_by_a_file() -> None:
    with pytest.raises(StoreError, match="result rows are kept in a file, which this is not"):
        Results(Path("/dev/null"))


@pytest.mark.usefixtures("unplayed")
@pytest.mark.parametrize(
    "words",
    [
        ("reproduce", "table3", "--draw-only", "--results"),
        ("reproduce", "table3", "--dry-run", "--results"),
        ("sweep", "demo", "--dry-run", "--results"),
        ("report",),
    ],
    ids=" ".join,
)
def test_a_file_of_other_json_is_one_message_wherever_rows_are_read(
    bezoar: Any, tmp_path: Path, words: tuple[str, ...]
) -> None:
    for name in ("repairs", "curves", "search", "detection"):
        (tmp_path / f"{name}.jsonl").write_text('{"address": "a", "result": {}}\n')
    where = tmp_path if words[0] == "reproduce" else tmp_path / "repairs.jsonl"
    answer = bezoar(*words, where)
    assert ".jsonl, line 1: the row's game has no kind, so this is no file of result rows" in said(answer)


@pytest.mark.usefixtures("unplayed")
@pytest.mark.parametrize("words", [("--draw-only",), ("--dry-run",)])
def test_a_searched_game_is_found_among_rows_of_any_repairer(
    bezoar: Any, experiments: Path, tmp_path: Path, words: tuple[str]
) -> None:
    """Rows of another version of bezoar may hold something else in a repairer's place."""
    row = '{"address": "a", "game": {"kind": "robustness@1", "repairer": "none"}, "result": {}}\n'
    (tmp_path / "search.jsonl").write_text(row)
    answer = bezoar("reproduce", "table5", "--experiments", experiments, "--results", tmp_path, *words)
    assert answer.exit_code == 0, answer.stderr


def test_provenance_names_the_processor_and_counts_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor\t: 0\nmodel name\t: Some  Chip @ 3.00GHz\n\nprocessor\t: 1\nmodel name\t: Other\n")
    assert processor(facts) == "Some Chip @ 3.00GHz"
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    (tmp_path / "unnamed").write_text("processor\t: 0\n")
    assert [processor(tmp_path / name) for name in ("unnamed", "not there")] == ["arm", "arm"]
    made = provenance(torch.device("cpu"))
    assert (made["processor"], made["cores"]) == (processor(), os.cpu_count())


def test_rows_of_different_machines_are_read_together() -> None:
    """Rows of before have neither field."""
    old = {"provenance": {"machine": "x86_64"}, "seconds": 1.0}
    new = {"provenance": {"machine": "x86_64", "processor": "Some Chip", "cores": 2}, "seconds": 2.0}
    assert provenance_of([old, new]) == {"machine": "x86_64", "processor": "Some Chip", "cores": "2", "seconds": "3"}


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
