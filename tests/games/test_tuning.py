"""`bezoar tune`, and settings files with `tuned: true`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from world import WORLD

from bezoar import sweep
from bezoar.errors import SettingError
from bezoar.games.referee import Referee
from bezoar.plans import plan, read_settings
from bezoar.sweep import resolve
from bezoar.tuning import tuned

SMALL: dict[str, Any] = {
    **WORLD,
    "data": {**WORLD["data"], "train": 500, "test": 60},
    "trainer": {**WORLD["trainer"], "epochs": 1},
    "attack": {**WORLD["attack"], "poisons": 20},
    "trusted": 60,
    "every": 2,
    "game": "robustness",
    "repairer": {"kind": "weight_decay", "steps": 4, "batch_size": 30},
}


def write(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path


def test_tune_prints_every_trial_and_draws_them(bezoar: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "game.yaml", SMALL)
    words = ("tune", path, "--trials", "3", "--folds", "2")
    document = json.loads(bezoar(*words, "--json", "--out", tmp_path / "out").stdout)
    assert [trial["number"] for trial in document["trials"]] == [0, 1, 2]
    winner = document["trials"][document["winner"]]
    assert document["repairer"]["lr"] == winner["settings"]["lr"]
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == document
    assert (tmp_path / "out" / "trials.png").stat().st_size > 5000
    shown = bezoar(*words).stdout
    assert "The winner: repairer.lr=" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_tuned_games_of_all_attacks_and_seeds_share_one_winner(
    tmp_path: Path, referee: Referee, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "tuned", partial(tuned, trials=2, folds=2))
    grid = {"seed": [7, 8], "attack": [{"kind": "badnets", "poisons": 20}, {"kind": "wanet", "poisons": 9}]}
    described = read_settings(write(tmp_path / "sweep.yaml", {**SMALL, "tuned": True, "grid": grid}))
    assert described.tuned
    resolved = resolve(plan(described), described.tuned, referee)
    games = resolved.games
    assert len({json.dumps(told) for told in resolved.searches}) == 1
    repairers = {json.dumps(game.describe()["repairer"]) for game in games}
    assert (len(games), len(repairers)) == (4, 1)
    assert sorted(game.describe()["attack"]["kind"] for game in games) == ["badnets", "badnets", "wanet", "wanet"]


def test_a_settings_file_without_the_word_is_not_tuned(tmp_path: Path) -> None:
    parent = write(tmp_path / "parent.yaml", {**SMALL, "tuned": True})
    assert not read_settings(write(tmp_path / "plain.yaml", SMALL)).tuned
    assert read_settings(write(tmp_path / "child.yaml", {"extends": parent.name})).tuned
    assert not read_settings(write(tmp_path / "other.yaml", {"extends": parent.name, "tuned": False})).tuned
    with pytest.raises(SettingError, match="tuned: true or false is expected, not 'perhaps'"):
        read_settings(write(tmp_path / "odd.yaml", {**SMALL, "tuned": "perhaps"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"game": "detectability", "repairer": None, "detector": "last_layer", "every": None}, "no repairer to tune"),
        ({"repairer": {"kind": "batchnorm_recalibration", "steps": 2}}, "no settings to search"),
        ({"repairer": None}, "tuned: this game has no repairer"),
    ],
)
def test_games_that_cannot_be_tuned_are_refused_in_one_line(
    bezoar: Any, tmp_path: Path, change: dict[str, Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {name: value for name, value in {**SMALL, **change}.items() if value is not None}
    answer = bezoar("tune", write(tmp_path / "game.yaml", settings), "--trials", "2")
    assert answer.exit_code == 2
    assert message in capfd.readouterr().err + answer.stderr
