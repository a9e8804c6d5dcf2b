"""Transfer games that cannot be played: one message, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from world import TRANSFER, transfer

from bezoar.errors import SettingError
from bezoar.games.referee import Made, Referee
from bezoar.games.transfer import divided
from bezoar.models.classifier import Classifier
from bezoar.models.resnet import SmallResNet
from bezoar.records import Dataset
from bezoar.roles import Splits


def test_more_trusted_images_than_are_left_are_refused_before_anything_is_trained(
    referee: Referee, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bezoar.training.sgd.Sgd.train", lambda *_: pytest.fail("a model was trained"))
    with pytest.raises(
        SettingError, match=r"trusted: 5000 are more images than .* leave, which are \d+; ask for fewer"
    ):
        transfer(detector="last_layer", trusted=5000, seed=1).play(referee)
    with pytest.raises(SettingError, match=r"removed: 0\.001 of 100 rows is 0 rows"):
        transfer(sanitizer="deep_knn", removed=0.001, seed=1).play(referee)


CRAFTING: dict[str, Any] = TRANSFER["attack"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attack": {**CRAFTING, "poisons": 11}}, r"attack\.poisons: 11 are too many; '8' has 10 images"),
        ({"attack": {**CRAFTING, "base_class": 12}}, r"attack\.base_class: 12 is no class; there are 10"),
        (
            {"attack": {**CRAFTING, "layers": 40}},
            r"attack\.layers: 40 .*; choose between 1 and \d+; .* a small_resnet",
        ),
        (
            {"attack": {**CRAFTING, "substitutes": ["resnet18", "small_resnet"], "layers": 6}},
            r"number 1 is a small_resnet",
        ),
        ({"attack": {**CRAFTING, "kind": "bullseye_polytope", "poisons": 11}}, r"attack\.poisons: 11 are too many"),
        ({"attack": {**CRAFTING, "kind": "feature_collision", "poisons": 11}}, r"attack\.poisons: 11 are too many"),
    ],
)
def test_an_attack_that_cannot_be_crafted_is_refused_before_anything_is_trained(
    referee: Referee, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("bezoar.training.sgd.Sgd.train", lambda *_: pytest.fail("a model was trained"))
    with pytest.raises(SettingError, match=message):
        transfer(**settings, seed=1).play(referee)


def test_a_target_among_the_images_for_fine_tuning_is_refused_before_anything_is_trained(
    referee: Referee, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are apart by themselves, so it takes data that hold an image twice."""
    game = transfer(seed=1)
    whole = referee.splits(game.data)
    train = whole.value.train
    rows, images = divided(train.labels, game), train.images().clone()
    images[rows.targets[3]] = images[rows.fine_tuning[7]]
    twice = Splits(Dataset.in_memory(images, train.labels, train.classes), whole.value.test)
    monkeypatch.setattr(Referee, "splits", lambda *_: Made(twice, "with an image twice"))
    monkeypatch.setattr("bezoar.training.sgd.Sgd.train", lambda *_: pytest.fail("a model was trained"))
    with pytest.raises(SettingError, match="targets: one is among the images that the victim trains on"):
        game.play(referee)


def test_a_linear_victim_without_a_linear_head_is_refused_before_anything_is_trained(
    referee: Referee, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the head's weight is computed from others, of which no copies are trained side by side."""
    built = SmallResNet.build

    def normed(*rest: Any) -> Classifier:
        model = built(*rest)
        torch.nn.utils.parametrizations.weight_norm(model.head)
        return model

    monkeypatch.setattr(SmallResNet, "build", normed)
    monkeypatch.setattr("bezoar.training.sgd.Sgd.train", lambda *_: pytest.fail("a model was trained"))
    with pytest.raises(SettingError, match=r"'linear' trains a plain linear layer, .* ends in a ParametrizedLinear"):
        transfer(seed=1).play(referee)
    with pytest.raises(pytest.fail.Exception, match="a model was trained"):
        transfer(seed=1, transfer="end_to_end").play(referee)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_class": 8}, "target_class: 8 is the label that the attack intends already"),
        ({"repairer": "weight_decay", "examined": 1}, "examined: a repair's means need two victims"),
        ({"victim_data": [0.5, 0.5]}, r"victim_data: from 0\.5 to 0\.5 there is no image"),
        ({"attack": "badnets"}, "'badnets' cannot stand here"),
        ({"victim": "substitute", "architecture": "small_senet"}, "victim: no substitute is a small_senet; they are"),
        ({"attack": {"kind": "convex_polytope", "substitutes": [{"kind": "timm", "name": "x"}]}}, "has no dropout"),
    ],
)
def test_a_game_that_cannot_be_played_is_refused_when_it_is_read(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        transfer(**settings)


def test_a_class_with_too_few_images_is_named() -> None:
    labels = torch.arange(1900) % 10
    with pytest.raises(
        SettingError, match=r"pretraining 180 \+ fine_tuning 10 \+ targets 6 .* class 6 has, which are 190"
    ):
        divided(labels, transfer())
    with pytest.raises(SettingError, match="target_class: 9 is no class; there are 3"):
        divided(torch.arange(30) % 3, transfer(target_class=9))
