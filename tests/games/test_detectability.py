"""The detectability game: populations of twins, every score kept."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.metrics import roc_auc_score
from world import CLEANSE, WORLD

from bezoar.component import build
from bezoar.defenses.detectors.neural_cleanse import NeuralCleanse
from bezoar.errors import SettingError
from bezoar.games.detectability import Detectability
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.measure.estimates import auc
from bezoar.records import Dataset, Trusted
from bezoar.roles import Attack
from bezoar.seed import Seed


@pytest.fixture(scope="module")
def seen(detectability: Detectability, referee: Referee) -> dict[str, Any]:
    return detectability.play(referee)


def test_the_planted_class_scores_highest_and_above_the_twin(seen: dict[str, Any]) -> None:
    poisoned, clean = seen["poisoned"][0], seen["clean"][0]
    assert poisoned["suspected_class"] == poisoned["target"] == 3
    assert poisoned["score"] > clean["score"]
    assert seen["auc"]["value"] == 1.0


def test_a_models_score_is_the_maximum_over_its_classes(seen: dict[str, Any]) -> None:
    for model in (*seen["poisoned"], *seen["clean"]):
        assert model["score"] == pytest.approx(max(model["scores"]))


def test_the_auc_agrees_with_scikit_learn_and_keeps_an_interval(seen: dict[str, Any]) -> None:
    scores = [model["score"] for name in ("poisoned", "clean") for model in seen[name]]
    labels = [1] * len(seen["poisoned"]) + [0] * len(seen["clean"])
    assert seen["auc"]["value"] == pytest.approx(roc_auc_score(labels, scores))
    assert seen["auc"]["low"] < 0.5


def test_the_interval_of_the_auc_does_not_take_twins_for_independent(seen: dict[str, Any]) -> None:
    scores, seeds = (
        [[one[name] for one in seen[side]] for side in ("poisoned", "clean")] for name in ("score", "seed")
    )
    assert seen["auc"] == auc(scores[0], scores[1], (seeds[0], seeds[1])).as_json()
    assert seen["auc"]["low"] < auc(scores[0], scores[1]).low


def test_the_planted_class_s_trigger_is_the_backdoor_s_and_not_one_of_the_images_nature(seen: dict[str, Any]) -> None:
    found = seen["poisoned"][0]["fidelity"]
    assert found["success"]["value"] > 0.7
    assert found["twin_success"]["value"] < found["success"]["value"] - 0.3
    assert 0 <= found["overlap"] < 0.5  # it works, and yet lies elsewhere than the planted patch
    assert seen["poisoned"][0]["attack_success"]["value"] > 0.9


def test_clean_models_beyond_the_twins_are_of_further_seeds(
    seen: dict[str, Any], detectability: Detectability, referee: Referee
) -> None:
    found = detectability.replace(clean=2).play(referee)
    assert [one["seed"] for one in found["clean"]] == [7, 8]
    assert found["clean"][0] == seen["clean"][0]
    assert (found["auc"]["n"], found["above_twin"]["n"]) == (3, 1)


def test_as_many_clean_models_as_poisoned_ones_is_the_default_and_leaves_addresses_alone(
    detectability: Detectability, referee: Referee
) -> None:
    assert "clean" not in detectability.identity()
    assert detectability.replace(clean=2).address(referee) != detectability.address(referee)
    with pytest.raises(SettingError, match="clean: 1 is too few"):
        build(Detectability, {**WORLD, "detector": CLEANSE, "models": 2, "clean": 1})


def test_games_share_their_models(
    seen: dict[str, Any], robustness: Robustness, detectability: Detectability, referee: Referee
) -> None:
    """Twenty defences share one trained model: the addresses name neither the game nor the defence."""
    data = referee.splits(robustness.data)
    poison = referee.collect(data, robustness.attack, Seed(7))
    one = referee.train(data, poison, robustness.recipe, Seed(7))
    other = referee.train(data, poison, detectability.recipe, Seed(7))
    assert one.address == other.address


def test_a_detector_gets_the_suspect_and_trusted_images_and_nothing_else(
    referee: Referee, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No probe, no poisoned rows, no target, no test images reach it, not even through its lab."""
    handed: list[object] = []
    inspect = NeuralCleanse.inspect

    def watch(self: NeuralCleanse, *given: object) -> object:
        handed.extend(given)
        return inspect(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(NeuralCleanse, "inspect", watch)
    build(Detectability, {**WORLD, "detector": {**CLEANSE, "steps": 2}, "models": 1}).play(referee)
    suspect, trusted, lab, seed = handed[:4]
    assert isinstance(trusted, Trusted)
    assert isinstance(seed, Seed)
    for thing in (suspect, lab):
        for value in vars(thing).values():
            assert not isinstance(value, (Dataset, Attack, Referee))
    assert {"store", "probe", "attack", "poison"}.isdisjoint(vars(lab))
