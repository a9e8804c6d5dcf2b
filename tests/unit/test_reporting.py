"""What `bezoar report` takes: files of rows, folders of such files, and nothing that only looks like either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from bezoar.cli import app
from bezoar.store import Store


def say(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, words)])


def refusal(answer: Result) -> str:
    assert answer.exit_code == 2, answer.output
    assert "Traceback" not in answer.stderr
    return " ".join(answer.stderr.split())


def failure(address: str) -> dict[str, Any]:
    return {"address": address, "game": {"kind": "robustness@1", "seed": 0}, "error": "too much"}


def keep(path: Path, *addresses: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(failure(one)) + "\n" for one in addresses))
    return path


def test_a_folder_is_every_file_of_rows_below_it_in_order(tmp_path: Path) -> None:
    keep(tmp_path / "rows" / "b.jsonl", "second", "third")
    keep(tmp_path / "rows" / "a" / "deep.jsonl", "first", "second")
    (tmp_path / "rows" / "notes.txt").write_text("no rows")
    (tmp_path / "rows" / "folder.jsonl").mkdir()
    lone = keep(tmp_path / "lone.jsonl", "fourth")
    answer = say(tmp_path / "rows", lone, "--out", tmp_path / "out")
    assert answer.exit_code == 0, answer.output
    assert pd.read_csv(tmp_path / "out" / "rows.csv")["address"].tolist() == ["first", "second", "third", "fourth"]


def test_a_folder_without_rows_says_so_and_names_a_result_in_it(tmp_path: Path) -> None:
    assert "no file of result rows (.jsonl) lies in or below this folder" in refusal(say(tmp_path))
    (tmp_path / "result.json").write_text(json.dumps(failure("a")))
    assert f"name {tmp_path / 'result.json'}, if that is meant" in refusal(say(tmp_path))
    assert say(tmp_path / "result.json", "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize("inside", ["", "store"])
def test_a_store_holds_no_rows(tmp_path: Path, inside: str) -> None:
    Store(tmp_path)
    said = refusal(say(tmp_path / inside, "--out", tmp_path / "out"))
    assert "this is the store, which holds stages and no result rows; name the .jsonl" in said
    assert not (tmp_path / "out").exists()


def test_rows_beside_a_store_are_read(tmp_path: Path) -> None:
    Store(tmp_path)
    keep(tmp_path / "rows.jsonl", "a")
    assert "1 rows" in say(tmp_path, "--out", tmp_path / "out").stdout


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("nonsense", "this is no JSON"),
        ('{"rows": 3}', "its rows are no list"),
        ('{"rows": [{"address": "a", "result": {}}]}', "the row's game has no kind"),
        ('{"verdict": "suspicious"}', "the row has no address"),
    ],
)
def test_a_document_without_rows_is_refused_with_what_is_amiss(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "result.json").write_text(content)
    assert f"this holds no result rows ({why})" in refusal(say(tmp_path / "result.json"))


def test_what_is_not_there_is_named() -> None:
    assert "nowhere: no such file or folder of result rows" in refusal(say("nowhere"))


def test_the_help_says_that_folders_are_taken() -> None:
    assert "every .jsonl below them" in " ".join(say("--help").stdout.replace("│", " ").split())
