"""Settings files, grids and result rows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from tiny import SMALL
from world import CLEANSE, ROBUSTNESS, UNLEARNING, WORLD

from bezoar.component import build
from bezoar.errors import SettingError, StoreError
from bezoar.forecast import expected_bytes, expected_seconds
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.inventory import entries
from bezoar.plans import plan, read_game, read_settings
from bezoar.rows import Results, commit_of
from bezoar.store import TENSORS, Store
from bezoar.sweep import Queue, sweep


def write(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture
def grid_file(tmp_path: Path) -> Path:
    repairer = {"kind": "weight_decay", "batch_size": 16}
    grid = {"seed": [7], "repairer.steps": [2, 4]}
    return write(tmp_path / "grid.yaml", {**ROBUSTNESS, "repairer": repairer, "every": 2, "grid": grid})


def test_a_grid_is_the_product_of_its_lists(tmp_path: Path) -> None:
    content = {"extends": "demo", "preset": "unlearning", "grid": {"seed": [1, 2], "attack.trigger.size": [3, 5, 7]}}
    games = plan(read_settings(write(tmp_path / "s.yaml", content)))
    found = [(game.seed, game.describe()["attack"]["trigger"]["size"]) for game in games]
    assert found == [(seed, size) for seed in (1, 2) for size in (3, 5, 7)]


def test_a_whole_component_can_be_a_value_of_a_grid(tmp_path: Path) -> None:
    repairers = [UNLEARNING, {"kind": "pivotal_tuning", "steps": 5}, "weight_decay"]
    content = {"extends": "demo", "preset": "unlearning", "grid": {"repairer": repairers}}
    games = plan(read_settings(write(tmp_path / "s.yaml", content)))
    assert [game.describe()["repairer"]["kind"] for game in games] == ["unlearning", "pivotal_tuning", "weight_decay"]


def test_every_game_is_checked_before_the_first_is_played(tmp_path: Path) -> None:
    content = {"extends": "demo", "preset": "unlearning", "grid": {"attack.poisons": [50, -1]}}
    with pytest.raises(SettingError, match=r'at \{"attack.poisons":-1\}: attack.poisons'):
        plan(read_settings(write(tmp_path / "s.yaml", content)))


def test_an_override_reaches_a_nested_default() -> None:
    game = read_game("demo", preset="unlearning", changes=["attack.trigger.size=5", "repairer.detector.steps=9"])
    assert game.describe()["attack"]["trigger"]["size"] == 5
    assert game.describe()["repairer"]["detector"] == {
        **game.describe()["repairer"]["detector"],
        "steps": 9,
        "cost": 0.01,
    }


def test_a_file_can_build_on_another_and_replace_a_component(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", {**WORLD, "game": "robustness", "repairer": UNLEARNING})
    child = write(tmp_path / "child.yaml", {"extends": "base.yaml", "repairer": {"kind": "weight_decay", "steps": 3}})
    settings = read_game(child).describe()
    assert settings["repairer"]["kind"] == "weight_decay"
    assert settings["attack"]["poisons"] == WORLD["attack"]["poisons"]


def test_the_first_preset_is_the_default_and_others_are_named(tmp_path: Path) -> None:
    content = {
        **WORLD,
        "game": "robustness",
        "repairer": "weight_decay",
        "presets": {"a": {"seed": 1}, "b": {"seed": 2}},
    }
    path = write(tmp_path / "p.yaml", content)
    assert (read_game(path).seed, read_game(path, preset="b").seed) == (1, 2)
    with pytest.raises(SettingError, match=r"has no .c.; .*known: a, b"):
        read_game(path, preset="c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "holds a mapping"),
        ("a: [", "not YAML"),
        ("game: robustnes", "did you mean 'robustness'"),
        ("game: robustness\ngrid: {seed: 3}", r"grid\.seed: a list"),
        ("extends: nowhere.yaml", "cannot be read"),
    ],
)
def test_a_broken_settings_file_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(SettingError, match=message):
        plan(read_settings(path))


def test_a_sweep_resumes_and_never_plays_a_game_twice(
    grid_file: Path, referee: Referee, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    games, path = plan(read_settings(grid_file)), tmp_path / "rows.jsonl"
    (first,) = sweep(games[:1], referee, Results(path))
    assert len(path.read_text().splitlines()) == 1
    rows = sweep(games, referee, Results(path))
    assert rows[0] == first
    assert [row["address"] for row in rows] == [game.address(referee) for game in games]
    monkeypatch.setattr("bezoar.games.robustness.Robustness.play", lambda *_: pytest.fail("played twice"))
    assert sweep(games, referee, Results(path)) == rows


def test_a_row_says_where_it_comes_from(grid_file: Path, referee: Referee, tmp_path: Path) -> None:
    (row,) = sweep(plan(read_settings(grid_file))[:1], referee, Results(tmp_path / "rows.jsonl"))
    assert {"torch", "threads", "device", "bezoar", "commit"} <= set(row["provenance"])
    assert row["game"]["attack"]["kind"] == "badnets@1"
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == row


def test_a_commit_is_marked_where_the_package_is_changed_and_not_where_rows_are_written(tmp_path: Path) -> None:
    package, rows = tmp_path / "package", tmp_path / "results.jsonl"
    package.mkdir()
    code = write(package / "code.yaml", {"a": 1})
    assert commit_of(package) == ""
    rows.write_text("")
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    commit = commit_of(package)
    assert len(commit) == 12
    rows.write_text("one")
    assert commit_of(package) == commit
    write(code, {"a": 2})
    assert commit_of(package) == f"{commit}-dirty"


def test_a_game_that_fails_is_a_row_with_its_message_and_the_rest_goes_on(referee: Referee, tmp_path: Path) -> None:
    good = build(Game, {**WORLD, "kind": "detectability", "detector": {**CLEANSE, "steps": 1}, "models": 1})
    bad = good.replace(attack={"kind": "badnets", "poisons": 1600})
    rows = sweep([bad, good], referee, Results(tmp_path / "rows.jsonl"))
    assert "attack.poisons: 1600 is more than" in rows[0]["error"]
    assert "result" in rows[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "this is no JSON"),
        ("[]", "a row is a mapping"),
        ('{"game": {"kind": "robustness@1"}, "result": {}}', "no address"),
        ('{"address": 7, "game": {"kind": "robustness@1"}, "result": {}}', "no address"),
        ('{"address": "b", "result": {}}', "game has no kind"),
        ('{"address": "b", "game": "robustness", "result": {}}', "game has no kind"),
        ('{"address": "b", "game": {}, "result": {}}', "game has no kind"),
        ('{"address": "b", "game": {"kind": "robustness@1"}}', "neither a result nor an error"),
        ('{"address": "b", "game": {"kind": "robustness@1"}, "result": 3}', "result is no mapping"),
    ],
)
def test_a_file_that_holds_no_rows_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(failure('a'))}\n\n{text}\n")
    with pytest.raises(StoreError, match=rf"rows\.jsonl, line 3: .*{message}.* no file of result rows"):
        Results(path)


def failure(address: str) -> dict[str, Any]:
    return {"address": address, "game": {"kind": "robustness@1"}, "error": "too much"}


def test_rows_of_games_that_tell_nothing_of_time_are_left_out_of_a_forecast(robustness: Game) -> None:
    row = {"address": "a", "game": robustness.identity(), "result": {}, "seconds": 8.0}
    odd = [
        {**row, "game": {"kind": "robustness@1"}},
        {**row, "seconds": "long"},
        {**row, "game": {**row["game"], "data": 3}},
    ]
    assert expected_seconds([robustness], [*odd, row]) == 8.0
    assert expected_seconds([robustness], odd) is None


def test_a_full_disk_leaves_the_old_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    Results(path).add(failure("a"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="No space left"):
        Results(path).add(failure("b"))
    monkeypatch.undo()
    assert list(Results(path).rows) == ["a"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_as_many_models_are_trained_as_the_games_say(tmp_path: Path) -> None:
    """Second route: the stages that lie in a fresh store when all have been played."""
    small = {
        "data": {"kind": "digits_in_the_wild", "train": 300, "test": 60},
        "architecture": {"kind": "small_resnet", "stages": 1},
        "trainer": {"kind": "sgd", "epochs": 1, "batch_size": 32},
        "trusted": 20,
    }
    attacks = ({"kind": "badnets", "poisons": 10}, {"kind": "adv_clean", "poisons": 5})
    seen = {**small, "kind": "detectability", "attack": attacks[0], "detector": "last_layer", "models": 2, "clean": 3}
    games = [build(Game, {**small, "kind": "robustness", "attack": attack, "seed": 1}) for attack in attacks]
    games += [build(Game, {**seen, "trusted_source": source}) for source in ("train", "held_out")]
    referee = Referee(Store(tmp_path))
    for game in games:
        game.play(referee)
    found = list(entries(referee.store))
    made = [entry.stage for entry in found]
    expected = set[str]().union(*(game.trainings() for game in games))
    assert made.count("train") == len(expected) == 12
    folders = [referee.store.root / one.address[:2] / one.address for one in found if one.stage == "train"]
    weights = [load_file(folder / TENSORS) for folder in folders]
    bytes_of_weights = sum(one.numpy().nbytes for model in weights for one in model.values())
    assert expected_bytes(games, Referee(Store(tmp_path / "other"))) == bytes_of_weights
    on_disk = sum(one.size for one in found if one.stage == "train")
    assert 1 < on_disk / bytes_of_weights < 1.3, "the rest is what entries say of themselves"


def test_the_room_of_models_is_that_of_their_parameters(tmp_path: Path) -> None:
    """Second route: parameters counted by hand, 4 bytes each; a layer for each summand, of weights and biases."""
    referee = Referee(Store(tmp_path))
    one = 4 * ((3 * 16 * 16 + 16) + (16 * 32 * 16 + 32) + (32 * 8 * 8 * 16 + 16) + (16 * 10 + 10))
    small = {**WORLD, "architecture": {"kind": "convolutional", "width": 16, "hidden": 16}}
    game = build(Game, {**small, "kind": "robustness"})
    assert expected_bytes([game], referee) == 2 * one, "the suspect and its clean twin"
    assert expected_bytes([game, game.replace(repairer="weight_decay")], referee) == 2 * one
    assert expected_bytes([game, game.replace(seed=8)], referee) == 4 * one
    voting = game.replace(trainer={"kind": "partition_ensemble", "parts": 3})
    assert expected_bytes([game, voting], referee) == 2 * one + 2 * (3 * one + 4 * 30 * 10), "members and their votes"
    larger = game.replace(architecture={"kind": "convolutional", "width": 16, "hidden": 20})
    assert expected_bytes([larger], referee) == 2 * (one + 4 * 4 * (32 * 8 * 8 + 1 + 10))
    assert expected_bytes([], referee) == 0
    assert [entry.stage for entry in entries(referee.store)] == ["data"], "nothing is trained to know it"


def test_the_time_of_a_sweep_is_guessed_from_rows_of_the_same_players(tmp_path: Path) -> None:
    games = plan(read_settings(write(tmp_path / "g.yaml", {**ROBUSTNESS, "grid": {"seed": [1, 2]}})))
    rows = [{"game": games[0].identity(), "result": {}, "seconds": seconds} for seconds in (10, 20)]
    assert expected_seconds(games, rows) == 30
    other = games[0].replace(repairer={"kind": "weight_decay"})
    assert expected_seconds([*games, other], rows) is None
    assert expected_seconds([], rows) == 0
    population = build(Game, {**WORLD, "kind": "detectability", "detector": CLEANSE, "models": 2})
    rows = [{"game": population.identity(), "result": {}, "seconds": 8}]
    assert expected_seconds([population.replace(clean=10)], rows) == 8 / 4 * 12


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
