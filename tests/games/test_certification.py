"""The certification game, end to end on scikit-learn's digits, and what it refuses."""

from __future__ import annotations

from typing import Any

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
