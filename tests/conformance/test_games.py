"""Every game of the registry is a component like any other, and returns plain JSON."""

import json
from pathlib import Path

import pytest

from bezoar.component import build
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.games.transfer import Transfer
from bezoar.store import Store
from conformance import cases, hold, ready

TOY = {
    "data": {"kind": "digits_in_the_wild", "train": 60, "test": 40},
    "attack": {"kind": "badnets", "poisons": 6},
    "architecture": {"kind": "small_resnet", "width": 16, "stages": 1},
    "trainer": {"kind": "sgd", "epochs": 1, "batch_size": 30, "augmentation": "none"},
    "trusted": 20,
}
QUICK = {
    "detector": {"kind": "neural_cleanse", "steps": 2, "batch_size": 8},
    "models": 1,
    "certifier": {"kind": "bounds", "methods": ["ibp"]},
    "images": 20,
}
TRANSFER = {
    "data": {"kind": "digits_in_the_wild", "train": 400, "test": 40},
    "attack": {"kind": "convex_polytope", "substitutes": ["small_resnet"], "dropout": [0.2], "poisons": 2, "steps": 2},
    **{name: TOY[name] for name in ("architecture", "trainer")},
    **{"pretraining": 12, "fine_tuning": 4, "targets": 2, "epochs": 2},
}
GAMES = ready("games", settled=["trusted_source", "victim"])


@cases(GAMES)
def test_game(component, claim):
    hold(component, claim)


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.kind)
def test_a_game_is_the_same_fact_in_json_whenever_it_is_played(game: Game, tmp_path: Path):
    quick = {name: value for name, value in QUICK.items() if name in type(game).model_fields}
    game = build(Game, {**game.describe(), **(TRANSFER if isinstance(game, Transfer) else TOY), **quick})
    result = game.play(Referee(Store(tmp_path / "first")))
    assert json.loads(json.dumps(result)) == result
    assert game.play(Referee(Store(tmp_path / "second"))) == result
