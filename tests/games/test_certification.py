"""The certification game, end to end on scikit-learn's digits, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bezoar.component import build
from bezoar.errors import SettingError
from bezoar.games.certification import Certification
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.report.results import results_page
from bezoar.rows import Row
from bezoar.store import Store

DIGITS = {"kind": "certification", "data": "digits", "architecture": "convolutional", "trusted": 100, "seed": 7}
SMOOTHED: dict[str, Any] = {
    **DIGITS,
    "trainer": {
        "kind": "sgd",
        "noise": 0.25,
        "epochs": 12,
        "batch_size": 64,
        "lr": 0.05,
        "schedule": "one_cycle",
        "nesterov": True,
        "augmentation": "none",
    },
    "certifier": "smoothing",
    "images": 120,
}
