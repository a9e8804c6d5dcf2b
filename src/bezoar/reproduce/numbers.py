"""The numbers that the paper prints, and how far off they may be: ``numbers.yaml`` beside the experiments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bezoar.errors import SettingError

TRUSTED = {"r1": 500, "r2_5": 1250, "r5": 2500}
"""Shares of the paper's 50,000 images of CIFAR-10, as numbers of trusted images."""

REPAIRERS = {
    "pivotal_tuning": "pivotal_tuning",
    "weight_decay": "weight_decay",
    "fine_pruning": "fine_pruning",
    "nad": "attention_distillation",
    "neural_cleanse": "unlearning",
}
"""The paper's columns of Table III -> our names."""

SETTINGS = {
    "lr": "lr",
    "slol_lambda": "slol_lambda",
    "param_lambda": "param_lambda",
    "weight_decay": "weight_decay",
    "at_lambda": "attention_lambda",
    "power": "power",
    "prune_rate": "rate",
}
"""The paper's columns of Table V, as far as they are settings that we search -> our names."""


@dataclass(frozen=True)
class Attacked:
    """A line of Table II."""

    attack: str
    m: int
    accuracy: float
    success: float
    area: float


@dataclass(frozen=True)
class Anchor:
    """A point of Figure 5 that the text gives: ROC AUC is of calibrated inversion."""

    attack: str
    m: int
    success: float
    area: float


@dataclass(frozen=True)
class Left:
    """A cell of Table III."""

    attack: str
    repairer: str
    trusted: int
    success: float


@dataclass(frozen=True)
class Paper:
    """What is printed for CIFAR-10.

    Attributes:
        table2, figure5, table3: line by line.
        table5: repairer -> setting -> value.
        accuracy_tolerance, area_tolerance: absolute.
        success_tolerance: attack -> absolute, before a repair.
        left_tolerance: absolute, after a repair.
    """

    table2: list[Attacked]
    figure5: list[Anchor]
    table3: list[Left]
    table5: dict[str, dict[str, float]]
    accuracy_tolerance: float
    area_tolerance: float
    success_tolerance: dict[str, float]
    left_tolerance: float


def read_paper(path: Path) -> Paper:
    """Read the printed numbers.

    Raises:
        SettingError: the file is missing or no such file.
    """
    try:
        document: dict[str, Any] = yaml.safe_load(path.read_text())
        printed, tolerances = document["paper"], document["ours"]["reproduction_tolerance"]
        second, third = printed["table2"]["cifar10"], printed["table3"]["cifar10"]
        figure5 = printed["figures_text"]["figure5"]
        return Paper(
            [
                Attacked(attack, line["m"], line["cda"], line["asr"], line["detectability"])
                for attack, line in second.items()
            ],
            [
                Anchor(attack, point["m"], point["asr"], point["auc"])
                for attack, name in (("badnets", "cifar10_badnets"), ("clean_badnets", "cifar10_c_badnets"))
                for point in figure5[name]
            ],
            [
                Left(attack, REPAIRERS[column], TRUSTED[share], value)
                for attack, columns in third.items()
                for column, shares in columns.items()
                for share, value in shares.items()
            ],
            {
                REPAIRERS[column]: {
                    SETTINGS[name]: value for name, value in sizes["cifar10"].items() if name in SETTINGS
                }
                for column, sizes in printed["table5"].items()
                if column in REPAIRERS
            },
            tolerances["cda"],
            tolerances["auc"],
            dict(tolerances["asr_undefended"]),
            tolerances["asr_after_pivotal_tuning"]["cifar10"],
        )
    except OSError as error:
        raise SettingError(f"{path}: the paper's numbers cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise SettingError(f"{path}: these are not the paper's numbers ({type(error).__name__}: {error})") from None
