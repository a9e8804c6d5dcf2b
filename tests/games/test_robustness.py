"""The robustness game: what its result says is what an independent measurement says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from world import UNLEARNING, WORLD

from bezoar.component import build
from bezoar.errors import SettingError
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Trusted, as_float
from bezoar.roles import Repairer
from bezoar.seed import Seed


def test_the_backdoor_takes_and_the_twin_does_not_have_it(played: dict[str, Any]) -> None:
    assert played["suspect"]["attack_success"]["value"] > 0.8
    assert played["twin"]["attack_success"]["value"] < 0.2


def test_attack_success_is_the_share_of_stamped_images_of_other_classes_taken_for_the_target(
    played: dict[str, Any], robustness: Robustness, referee: Referee
) -> None:
    """Second route: stamp by hand, predict in one batch, count."""
    data = referee.splits(robustness.data)
    poison = referee.collect(data, robustness.attack, Seed(7))
    model = referee.train(data, poison, robustness.recipe, Seed(7)).value
    test = data.value.test
    images = as_float(test.images())
    images[:, :, :3, :3] = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 1]])
    with torch.no_grad():
        answers = model(images).argmax(1)
    others = test.labels != 3
    expected = float((answers[others] == 3).float().mean())
    assert played["suspect"]["attack_success"]["value"] == pytest.approx(expected, abs=1e-6)
    assert played["suspect"]["attack_success"]["n"] == int(others.sum())


def test_the_curve_begins_with_the_suspect_and_ends_with_the_last_step(played: dict[str, Any]) -> None:
    steps = [point["step"] for point in played["curve"]]
    assert steps == [0, 4, 8, 12]
    first = played["curve"][0]
    assert first["clean_accuracy"] == played["suspect"]["clean_accuracy"]
    assert first["attack_success"] == played["suspect"]["attack_success"]
    assert first["lost"]["value"] == 0


def test_accuracy_lost_is_the_difference_of_the_accuracies(played: dict[str, Any]) -> None:
    before = played["suspect"]["clean_accuracy"]["value"]
    for point in played["curve"]:
        assert point["lost"]["value"] == pytest.approx(before - point["clean_accuracy"]["value"], abs=1e-9)


def test_oracle_and_final_are_what_their_definitions_say(played: dict[str, Any]) -> None:
    within = [point for point in played["curve"] if point["lost"]["value"] <= 0.02 + 1e-9]
    readings = played["repaired"]
    assert readings["oracle"]["attack_success"]["value"] == min(p["attack_success"]["value"] for p in within)
    assert readings["final"]["step"] == within[-1]["step"]
    for reading in readings.values():
        success = reading["clean_accuracy"]["value"] - reading["attack_success"]["value"]
        assert reading["success"] == pytest.approx(success)


def test_blind_is_the_point_of_the_curve_at_the_last_step_that_the_trusted_images_accept(
    played: dict[str, Any],
) -> None:
    accepted = [look["step"] for look in played["looks"] if look["accepted"]]
    step = accepted[-1] if accepted else 0
    kept = next(point for point in played["curve"] if point["step"] == step)
    assert {name: played["repaired"]["blind"][name] for name in kept} == kept
    assert {look["accuracy"]["n"] for look in played["looks"]} == {WORLD["trusted"]}


def test_the_result_is_plain_json(played: dict[str, Any]) -> None:
    assert json.loads(json.dumps(played, allow_nan=False)) == played


def test_playing_again_computes_nothing(
    robustness: Robustness, referee: Referee, played: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a stage was computed twice")

    monkeypatch.setattr("bezoar.training.sgd.Sgd.train", refuse)
    monkeypatch.setattr("bezoar.defenses.repairers.unlearning.Unlearning.repair", refuse)
    assert robustness.play(referee) == played


def test_more_trusted_images_than_training_images_is_refused_by_name(referee: Referee) -> None:
    game = build(Robustness, {**WORLD, "trusted": 5000, "repairer": UNLEARNING})
    with pytest.raises(SettingError, match=r"trusted: 5000 is too many; the data has 1600 training images"):
        game.play(referee)


def test_a_poison_larger_than_the_eligible_images_is_refused_before_training(referee: Referee) -> None:
    game = build(Robustness, {**WORLD, "attack": {"kind": "badnets", "poisons": 1600}, "repairer": UNLEARNING})
    with pytest.raises(SettingError, match=r"attack\.poisons: 1600 is more than"):
        game.play(referee)


def test_more_folds_than_trusted_images_are_refused_before_anything_is_played() -> None:
    with pytest.raises(SettingError, match=r"^folds: 5 folds need as many trusted images, and there are 4$"):
        build(Robustness, {**WORLD, "repairer": UNLEARNING, "trusted": 4})


def test_without_a_repairer_the_game_ends_before_the_repair(
    referee: Referee, robustness: Robustness, played: dict[str, Any]
) -> None:
    undefended = robustness.replace(repairer=None).play(referee)
    assert undefended == {name: played[name] for name in ("suspect", "twin")}


class Reset(Repairer):
    """It undoes every attack by undoing everything: the student is a network before training."""

    kind: ClassVar[str] = "reset"
    revision: ClassVar[int] = 1

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        """One fresh network of the victim's public recipe."""
        assert lab.architecture is not None
        channels, height, width = trusted.images.shape[1:]
        yield lab.architecture.build((channels, height, width), suspect.classes, seed).eval()

    @property
    def length(self) -> int:
        """One model."""
        return 1


def test_a_repair_that_resets_the_weights_undoes_the_attack_and_is_refused_for_its_price(
    referee: Referee, robustness: Robustness, played: dict[str, Any]
) -> None:
    """Spec 4.5: what is left is chance, not the backdoor, and every reading stays with the suspect."""
    found = robustness.replace(repairer=Reset()).play(referee)
    point = found["curve"][-1]
    assert (point["step"], len(found["curve"])) == (1, 2)
    assert point["lost"]["value"] > 0.5
    assert point["attack_success"]["value"] < 0.5 < played["suspect"]["attack_success"]["value"]
    for reading in ("oracle", "final", "blind"):
        assert found["repaired"][reading]["step"] == 0
        assert found["repaired"][reading]["attack_success"] == played["suspect"]["attack_success"]


def test_a_code_poisoning_plays_like_any_other_attack(referee: Referee, robustness: Robustness) -> None:
    """Its twin is the same as for a data poisoning, and its backdoor takes."""
    attack = {"kind": "parameter_controlled", "fraction": 0.3, "target": 3, "trigger": "patch"}
    game = build(Robustness, {**robustness.describe(), "attack": attack, "repairer": None})
    result = game.play(referee)
    assert result["twin"]["clean_accuracy"] == robustness.replace(repairer=None).play(referee)["twin"]["clean_accuracy"]
    assert result["suspect"]["attack_success"]["value"] > result["twin"]["attack_success"]["value"] + 0.5


def test_a_target_that_is_no_class_is_refused(referee: Referee) -> None:
    game = build(Robustness, {**WORLD, "attack": {"kind": "badnets", "target": 10}, "repairer": UNLEARNING})
    with pytest.raises(SettingError, match=r"attack\.target: there is no class 10"):
        game.play(referee)


def test_the_victim_trains_on_no_held_out_image_and_on_no_other_image_of_the_same_digit(
    referee: Referee, robustness: Robustness
) -> None:
    """With held_out, the rows that are left are those whose source digit no trusted image shows, and all of them."""
    pool = referee.splits(robustness.data)
    deal = referee.deal(pool, 100, "held_out", Seed(7))
    train, groups = pool.value.train, pool.value.train.groups
    assert groups is not None
    row = {image.numpy().tobytes(): number for number, image in enumerate(train.images())}
    trusted = [row[image.numpy().tobytes()] for image in deal.trusted.value.images]
    assert len(set(trusted)) == 100
    digits = {int(groups[number]) for number in trusted}
    expected = [number for number in range(len(train)) if int(groups[number]) not in digits]
    assert 1600 - len(expected) > 100  # some digits do occur twice
    left = [row[image.numpy().tobytes()] for image in deal.data.value.train.images()]
    assert left == expected
    assert deal.data.address != pool.address
    assert referee.deal(pool, 100, "train", Seed(7)).data == pool
