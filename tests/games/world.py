"""The settings of the small world in which games are tested."""

from __future__ import annotations

from typing import Any

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
