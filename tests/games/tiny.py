"""Four games of a second each, which several processes play."""

from __future__ import annotations

from typing import Any

from bezoar.component import build
from bezoar.games.game import Game
from bezoar.rows import Row

SMALL: dict[str, Any] = {
    "kind": "robustness",
    "data": {"kind": "digits_in_the_wild", "train": 400, "test": 60},
    "attack": {"kind": "badnets", "poisons": 20},
    "architecture": {"kind": "small_resnet", "stages": 1},
    "trainer": {"kind": "sgd", "epochs": 1, "batch_size": 32},
    "repairer": {"kind": "weight_decay", "steps": 4, "batch_size": 16},
    "trusted": 40,
    "every": 2,
    "folds": 2,
}
SEEDS = (0, 1, 2, 3)
GAMES = [build(Game, {**SMALL, "seed": seed}) for seed in SEEDS]


def measured(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows without what differs from run to run."""
    return [{name: value for name, value in row.items() if name not in ("seconds", "provenance")} for row in rows]
