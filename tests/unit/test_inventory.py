"""What lies in a store, and `bezoar store`, which says it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bezoar import inventory
from bezoar.attacks.badnets import BadNets
from bezoar.cli import app
from bezoar.cli.console import in_bytes, in_time
from bezoar.errors import StoreError
from bezoar.store import Artefact, Stage, Store

POISON = Stage("collect", {"attack": BadNets().identity()}, "0/collect", {"data": "a" * 32})
MODEL = Stage("train", {"trainer": {"kind": "sgd@1"}}, "0/train", {"poison": POISON.address})
INSPECTION = Stage("inspect", {"detector": {"kind": "somebody_elses@7"}}, "0/inspect", {"model": MODEL.address})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three stages, each built on the one before."""
    monkeypatch.setenv("BEZOAR_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    made = Store(tmp_path)
    for stage in (POISON, MODEL, INSPECTION):
        made.make(stage, lambda: Artefact({"w": torch.ones(100)}, {"n": 1}))
    return made


def say(*words: str) -> Any:
    return CliRunner().invoke(app, ["store", *words])


def addresses(found: Any) -> set[str]:
    return {entry.address for entry in found}


def folder(store: Store, stage: Stage) -> Path:
    return store.root / stage.address[:2] / stage.address


def spoil(store: Store, stage: Stage) -> None:
    path = folder(store, stage) / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


def test_every_entry_is_there_with_its_recipe_and_its_size(store: Store) -> None:
    found = {entry.address: entry for entry in inventory.entries(store)}
    assert set(found) == {stage.address for stage in (POISON, MODEL, INSPECTION)}
    entry = found[MODEL.address]
    assert (entry.stage, entry.methods) == ("train", ["sgd@1"])
    assert entry.size == sum(path.stat().st_size for path in folder(store, MODEL).iterdir())
    assert {name: entry.record[name] for name in ("settings", "seed", "inputs")} == {
        name: MODEL.recipe()[name] for name in ("settings", "seed", "inputs")
    }


def test_what_a_revised_method_made_and_all_that_builds_on_it_is_outdated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not inventory.outdated(inventory.entries(store))
    monkeypatch.setattr(BadNets, "revision", 2)
    assert addresses(inventory.outdated(inventory.entries(store))) == {
        stage.address for stage in (POISON, MODEL, INSPECTION)
    }
    assert folder(store, INSPECTION).is_dir()


def test_methods_that_are_not_registered_here_are_not_judged(store: Store) -> None:
    alone = [entry for entry in inventory.entries(store) if entry.address == INSPECTION.address]
    assert alone[0].methods == ["somebody_elses@7"]
    assert not inventory.outdated(alone)


def test_what_has_not_been_read_for_long_is_unused_and_reading_counts(store: Store) -> None:
    then = time.time() - 40 * inventory.DAY
    for stage in (POISON, MODEL, INSPECTION):
        os.utime(folder(store, stage), (then, then))
    store.find(MODEL)
    assert addresses(inventory.unused(inventory.entries(store), 30.0)) == {POISON.address, INSPECTION.address}
    assert addresses(inventory.unused(inventory.entries(store), 30.0, "inspect")) == {INSPECTION.address}
    assert not inventory.unused(inventory.entries(store), 50.0)


def test_a_beginning_of_an_address_must_fit_one_entry(store: Store) -> None:
    assert inventory.lookup(store, MODEL.address[:12]).address == MODEL.address
    for start, message in (("", "3 entries"), ("nothing", "no entries")):
        with pytest.raises(StoreError, match=message):
            inventory.lookup(store, start)


def test_list_sums_up_stage_by_stage(store: Store) -> None:
    lines = say("list").stdout.splitlines()
    assert any("train" in line and " 1 " in line for line in lines)
    assert lines[-1].startswith("3 entries, ")
    document = json.loads(say("list", "--json", "--stage", "train").stdout)
    assert [entry["address"] for entry in document["entries"]] == [MODEL.address]


def test_show_explains_one_entry_and_who_builds_on_it(store: Store) -> None:
    document = json.loads(say("show", MODEL.address[:8], "--json").stdout)
    assert document["inputs"] == {"poison": POISON.address}
    assert document["used_by"] == [INSPECTION.address]
    assert MODEL.address in say("show", MODEL.address).stdout
    answer = say("show", "zz")
    assert answer.exit_code == 2


def test_verify_finds_the_damaged_entry_moves_it_aside_and_fails_once(store: Store) -> None:
    assert say("verify").exit_code == 0
    spoil(store, MODEL)
    answer = say("verify", "--json")
    found = json.loads(answer.stdout)
    assert (answer.exit_code, found["entries"]) == (1, 3)
    assert [one["address"] for one in found["damaged"]] == [MODEL.address]
    assert not folder(store, MODEL).exists()
    assert say("verify").exit_code == 0


def test_gc_deletes_what_is_outdated_or_damaged_and_nothing_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(store, POISON)
    say("verify")
    assert (store.root / "damaged").is_dir()
    monkeypatch.setattr("bezoar.training.sgd.Sgd.revision", 2)
    before = json.loads(say("gc", "--dry-run", "--json").stdout)
    assert not before["deleted"]
    assert folder(store, MODEL).is_dir()
    done = json.loads(say("gc", "--json").stdout)
    assert done["deleted"]
    assert done["entries"] == before["entries"]
    assert {line["why"]: line["entries"] for line in done["entries"]} == {"of revised methods": 2, "moved aside": 1}
    assert not list(inventory.entries(store))
    assert not list((store.root / "damaged").iterdir())
    assert say("gc").stdout.splitlines()[-1] == "Freed 0 B"


def test_a_stage_narrows_what_is_old_and_nothing_else(store: Store) -> None:
    answer = say("gc", "--stage", "inspect")
    assert answer.exit_code == 2
    assert len(list(inventory.entries(store))) == 3


def test_gc_deletes_old_entries_of_a_stage_when_asked(store: Store) -> None:
    assert "Would free" in say("gc", "--older-than", "0", "--stage", "inspect", "--dry-run").stdout
    say("gc", "--older-than", "0", "--stage", "inspect")
    assert addresses(inventory.entries(store)) == {POISON.address, MODEL.address}


def litter(store: Store) -> list[Path]:
    """What file managers and people leave behind, between the entries and among what was moved aside."""
    part = folder(store, MODEL).parent
    (store.root / "damaged").mkdir(exist_ok=True)
    free = next(name for name in ("ab", "cd", "ef", "01") if not (store.root / name).exists())
    other = next(name for name in ("0", "f") if not MODEL.address.startswith(name))
    left = [part / ".DS_Store", part / (MODEL.address[:2] + "0" * 30), store.root / free, store.root / "damaged" / "x"]
    for path in left:
        path.write_text("left behind")
    left += [part / "copy of an entry", part / (other * 32)]
    for path in left[4:]:
        path.mkdir()
    return left


@pytest.mark.parametrize(
    "words", [("list",), ("verify",), ("gc",), ("gc", "--older-than", "0", "--stage", "tune"), ("show", MODEL.address)]
)
def test_what_is_no_entry_stops_no_command_and_is_left_alone(store: Store, words: tuple[str, ...]) -> None:
    before = json.loads(say("list", "--json").stdout)["entries"]
    left = litter(store)
    answer = say(*words, "--json")
    assert answer.exit_code == 0, answer.output
    assert json.loads(say("list", "--json").stdout)["entries"] == before
    assert all(path.exists() for path in left)
    assert json.loads(say("verify", "--json").stdout)["entries"] == 3


def test_what_is_new_and_no_entry_took_no_part_in_a_sweep(store: Store) -> None:
    litter(store)
    assert addresses(inventory.used_since(store, 0.0)) == {POISON.address, MODEL.address, INSPECTION.address}


@pytest.mark.parametrize("command", ["list", "show", "verify", "gc"])
def test_every_command_of_the_store_has_help_with_an_example(command: str) -> None:
    assert f"Example: bezoar store {command}" in say(command, "--help").stdout


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 KB"), (2_340_000, "2.3 MB"), (7_100_000_000_000, "7.1 TB")],
)
def test_sizes_are_for_the_eye(count: int, text: str) -> None:
    assert in_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.21, "4.2 s"), (200.0, "3 min 20 s"), (7_500.0, "2 h 05 min"), (119.6, "2 min 00 s"), (59.97, "1 min 00 s")],
)
def test_durations_are_for_the_eye(seconds: float, text: str) -> None:
    assert in_time(seconds) == text
