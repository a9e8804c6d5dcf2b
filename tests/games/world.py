"""The settings of the small world in which games are tested."""

from __future__ import annotations

from typing import Any

from bezoar.component import build
from bezoar.games.game import Game
from bezoar.games.transfer import Transfer

WORLD: dict[str, Any] = {
    "data": {"kind": "digits_in_the_wild", "train": 1600, "test": 300},
    "attack": {"kind": "badnets", "poisons": 100, "target": 3},
    "architecture": {"kind": "small_resnet", "stages": 3},
    "trainer": {
        "kind": "sgd",
        "epochs": 5,
        "batch_size": 16,
        "lr": 0.05,
        "schedule": "one_cycle",
        "augmentation": "none",
    },
    "trusted": 100,
    "seed": 7,
}
CLEANSE = {"kind": "neural_cleanse", "steps": 40, "batch_size": 8, "cost": 0.01}
UNLEARNING = {"kind": "unlearning", "steps": 12, "lr": 0.02, "batch_size": 32, "detector": CLEANSE}
ROBUSTNESS = {**WORLD, "game": "robustness", "repairer": UNLEARNING, "every": 4, "folds": 2}
"""The settings file of the robustness game that the session plays once."""
TRANSFER: dict[str, Any] = {
    "kind": "transfer",
    "data": {"kind": "digits_in_the_wild", "train": 2600, "test": 300},
    "attack": {
        "kind": "convex_polytope",
        "substitutes": ["small_resnet"],
        "dropout": [0.2],
        "steps": 30,
        "epsilon": 0.4,
    },
    "architecture": "small_resnet",
    "trainer": {**WORLD["trainer"], "epochs": 6},
    "pretraining": 180,
    "fine_tuning": 10,
    "targets": 6,
    "every": 10,
}
"""The settings of the transfer game, which the session plays in variants."""


def transfer(**settings: Any) -> Transfer:
    """That game with other settings."""
    game = build(Game, {**TRANSFER, **settings})
    assert isinstance(game, Transfer)
    return game
