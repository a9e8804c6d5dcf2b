"""Defaults against the numbers that "Pick your Poison" prints: Tables IV and V, section V and appendix A-B."""

from __future__ import annotations

import pytest
import torch

from bezoar.attacks.badnets import BadNets
from bezoar.component import Component
from bezoar.defenses.detectors.neural_cleanse import NeuralCleanse
from bezoar.defenses.repairers.attention_distillation import AttentionDistillation
from bezoar.defenses.repairers.fine_pruning import FinePruning
from bezoar.defenses.repairers.pivotal_tuning import PivotalTuning
from bezoar.defenses.repairers.unlearning import Unlearning
from bezoar.defenses.repairers.weight_decay import WeightDecay
from bezoar.games.robustness import Robustness
from bezoar.lab import Lab
from bezoar.seed import Seed
from bezoar.training.sgd import Sgd
from bezoar.triggers.patch import Patch, apple


@pytest.mark.parametrize(
    ("component", "printed"),
    [
        (
            Sgd(),
            {
                "epochs": 120,
                "momentum": 0.9,
                "lr": 0.1,
                "weight_decay": 0.0005,
                "schedule": "cosine",
                "batch_size": 128,
            },
        ),
        (PivotalTuning(), {"steps": 2000, "lr": 0.01, "slol_lambda": 0.05, "param_lambda": 20000, "batch_size": 128}),
        (WeightDecay(), {"steps": 1000, "lr": 0.001, "weight_decay": 0.01, "batch_size": 128}),
        (FinePruning(), {"steps": 1000, "lr": 0.001, "rate": 0.96, "batch_size": 128}),
        (
            AttentionDistillation(),
            {
                "steps": 2000,
                "lr": 0.01,
                "teacher_steps": 1000,
                "power": 2,
                "attention_lambda": 1000,
                "batch_size": 128,
            },
        ),
        (Unlearning(), {"steps": 1000, "lr": 0.001, "batch_size": 128}),
        (NeuralCleanse(), {"norm_lambda": 2e-2}),
        (BadNets(), {"poisons": 50}),
    ],
    ids=lambda value: value.kind if isinstance(value, Component) else "",
)
def test_defaults_are_the_papers(component: Component, printed: dict[str, object]) -> None:
    assert {name: component.describe()[name] for name in printed} == printed


def test_the_budget_is_two_points_and_the_trusted_images_one_percent_of_cifar10() -> None:
    fields = Robustness.model_fields
    assert (fields["budget"].default, fields["trusted"].default, fields["every"].default) == (0.02, 500, 50)


@pytest.mark.parametrize(("width", "side"), [(32, 3), (224, 21)])
def test_the_patch_is_three_thirtyseconds_of_the_width_in_the_top_left_corner(width: int, side: int) -> None:
    images = torch.full((2, 3, width, width), 0.5)
    stamped = Patch().stamp(images, torch.arange(2), Lab(), Seed(0))
    changed = (stamped != images).any(1)
    assert not changed[:, side:].any()
    assert not changed[:, :, side:].any()
    assert changed[:, :side, :side].float().mean() > 0.9


def test_the_apple_is_dark_on_white_at_every_size() -> None:
    for size in (8, 21, 64):
        drawn = apple(size)
        assert drawn[0, 0] == 1
        assert drawn[size // 2, size // 2] == 0
        assert 0.2 < float(drawn.mean()) < 0.8
