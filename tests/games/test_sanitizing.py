"""The sanitize stage: what it removes, what it says of that, and that the model is trained on the rest."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from world import WORLD

from bezoar.component import build
from bezoar.errors import SettingError
from bezoar.games.game import Game
from bezoar.games.packing import pack_poison, unpack_poison
from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.games.sanitizing import most_suspicious, suspicions, told
from bezoar.lab import Lab
from bezoar.measure.estimates import auc, proportion
from bezoar.measure.predictions import clean_accuracy
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Poison
from bezoar.roles import Sanitizer
from bezoar.seed import Seed
from bezoar.store import Store
from bezoar.testing import toy

SHARE = 0.1


class TopLeft(Sanitizer):
    """It knows where the small world's trigger is: how near the corner is to it."""

    kind: ClassVar[str] = "top_left"
    revision: ClassVar[int] = 1

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Tensor:
        """Minus the distance of the corner's pixels from the trigger's."""
        del victim, lab, seed
        wanted = 255 * torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 1]])
        return -(data.images()[:, :, :3, :3].float() - wanted).abs().sum((1, 2, 3))


@pytest.fixture(scope="module")
def game() -> Robustness:
    return build(Robustness, WORLD).replace(sanitizer=TopLeft(), removed=SHARE)


@pytest.fixture(scope="module")
def cleaned(game: Robustness, referee: Referee) -> dict[str, Any]:
    return game.play(referee)


def test_removing_the_poison_removes_the_backdoor(cleaned: dict[str, Any]) -> None:
    """1600 rows, 160 removed, of which all 100 poisons."""
    found = cleaned["sanitized"]
    assert (found["rows"], found["removed"]) == (1600, 160)
    assert (found["auc"]["value"], found["auc"]["unit"], found["auc"]["n"]) == (1.0, "rows", 1600)
    assert (found["poisoned_removed"]["value"], found["poisoned_removed"]["n"]) == (1.0, 100)
    assert (found["clean_removed"]["value"], found["clean_removed"]["n"]) == (60 / 1500, 1500)
    assert found["attack_success"]["value"] < 0.2
    assert cleaned["suspect"]["attack_success"]["value"] > 0.8
    assert json.loads(json.dumps(cleaned, allow_nan=False)) == cleaned


def test_the_model_is_trained_on_the_rows_that_are_left_with_the_victims_seed(
    game: Robustness, referee: Referee
) -> None:
    """Second route: take the rows by hand and train without the store."""
    small = game.replace(
        sanitizer=TopLeft(),
        data={"kind": "digits_in_the_wild", "train": 300, "test": 200},
        attack={"kind": "badnets", "poisons": 20},
        trainer={**WORLD["trainer"], "epochs": 2},
    )
    found = small.play(referee)
    data = referee.splits(small.data)
    collected = referee.collect(data, small.attack, Seed(7)).value.apply(data.value.train)  # type: ignore[arg-type]
    scores = TopLeft().suspicion(toy.suspect(), collected, Lab(), Seed(0))
    rest = torch.ones(300, dtype=torch.bool)
    rest[most_suspicious(scores, SHARE, Seed(7) / "ties")] = False
    model = small.trainer.train(small.architecture, collected.take(rest.nonzero()[:, 0]), Lab(), Seed(7) / "train")
    known = clean_accuracy(model, data.value.test).as_json()
    assert known == found["sanitized"]["clean_accuracy"]
    assert known != found["suspect"]["clean_accuracy"], "nothing can be seen of the rows that are left"


def test_what_is_repaired_is_the_model_of_the_rows_that_are_left(
    cleaned: dict[str, Any], game: Robustness, referee: Referee
) -> None:
    repairer = {"kind": "weight_decay", "steps": 2}
    found = game.replace(sanitizer=TopLeft(), repairer=repairer, every=1, folds=2).play(referee)
    assert found["sanitized"] == cleaned["sanitized"]
    for name in ("clean_accuracy", "attack_success"):
        assert found["curve"][0][name] == cleaned["sanitized"][name]


def test_a_backdoor_in_a_sixteenth_of_the_rows_is_found_in_the_victims_features(
    game: Robustness, referee: Referee
) -> None:
    data = referee.splits(game.data)
    poison = referee.collect(data, game.attack, Seed(7))  # type: ignore[arg-type]
    collected = poison.value.apply(data.value.train)
    victim = referee.train(data, poison, game.recipe, Seed(7))
    sanitizer = build(Sanitizer, "spectral_signatures")
    scores = suspicions(referee, collected, {"poison": poison.address}, victim, sanitizer, Seed(7)).value
    found = told(scores, scores > scores.quantile(0.9), poison.value, collected)
    assert found["auc"]["low"] > 0.5


def test_playing_again_computes_nothing(
    game: Robustness, referee: Referee, cleaned: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a stage was computed twice")

    monkeypatch.setattr("bezoar.training.sgd.Sgd.train", refuse)
    monkeypatch.setattr(TopLeft, "suspicion", refuse)
    assert game.play(referee) == cleaned


def test_without_a_sanitizer_a_game_is_what_it_was(game: Robustness, referee: Referee, cleaned: dict[str, Any]) -> None:
    """Its identity, on which committed rows rest, does not know of the new settings."""
    plain = game.replace(sanitizer=None, removed=0.05)
    assert {"sanitizer", "removed"} & set(plain.identity()) == set()
    assert {"sanitizer", "removed"} <= set(game.identity())
    assert plain.play(referee) == {name: cleaned[name] for name in ("suspect", "twin")}


def test_the_model_of_the_rows_that_are_left_is_one_more_to_train(game: Robustness) -> None:
    plain = game.replace(sanitizer=None)
    assert len(plain.trainings()) == 2
    assert plain.trainings() < game.trainings()
    assert len(game.trainings() | game.replace(sanitizer=TopLeft(), removed=0.2).trainings()) == 4
    assert game.trainings() == game.replace(sanitizer=TopLeft(), repairer="weight_decay").trainings()


def test_supplied_models_have_no_data_to_sanitize() -> None:
    attack = {"kind": "parameter_controlled", "trigger": "patch"}
    with pytest.raises(SettingError, match=r"^sanitizer: 'parameter_controlled' supplies the model"):
        build(Game, {**WORLD, "kind": "robustness", "attack": attack, "sanitizer": "deep_knn"})


def test_a_share_of_rows_that_is_none_or_all_is_refused() -> None:
    for share in (0.001, 0.999):
        with pytest.raises(SettingError, match=r"^removed: 0\.\d+ of 100 rows is"):
            most_suspicious(torch.arange(100.0), share, Seed(0))


def test_the_highest_scores_go_and_ties_are_broken_by_the_seed() -> None:
    scores = torch.tensor([0.0, 3.0, 1.0, 1.0, 1.0, 1.0, 2.0, 0.0])
    drawn = [most_suspicious(scores, 0.5, Seed(number)).tolist() for number in range(40)]
    assert all(rows[:2] == [1, 6] and set(rows[2:]) < {2, 3, 4, 5} for rows in drawn)
    assert {row for rows in drawn for row in rows[2:]} == {2, 3, 4, 5}
    assert drawn[0] == most_suspicious(scores, 0.5, Seed(0)).tolist()


def test_added_points_are_the_poisoned_rows_and_the_rows_they_are_from_are_clean() -> None:
    """Second route to the area: Mann-Whitney's U of scipy."""
    clean = toy.dataset(40)
    rows = torch.tensor([3, 7, 3])
    points = Poison(rows, clean.batch(rows), clean.labels[rows], boost=2, added=True)
    scores = torch.rand(46, generator=Seed(1).generator())
    scores[40:] += 0.3
    gone = scores > 0.8
    found = told(scores, gone, points, points.apply(clean))
    poisoned = np.arange(46) >= 40
    u = stats.mannwhitneyu(scores[poisoned], scores[~poisoned]).statistic
    assert found["rows"] == 46
    assert found["auc"]["value"] == pytest.approx(u / (6 * 40))
    assert found["poisoned_removed"]["value"] == pytest.approx(float(gone[poisoned].float().mean()))
    assert (found["poisoned_removed"]["n"], found["clean_removed"]["n"]) == (6, 40)
    assert found["poisoned_removed"]["low"] < proportion(gone[poisoned]).low  # six points of two images


@pytest.mark.parametrize("added", [False, True])
def test_the_store_knows_added_points_from_replaced_rows(added: bool) -> None:
    clean, rows = toy.dataset(40), torch.tensor([3, 7])
    points = Poison(rows, clean.batch(rows + 1), clean.labels[rows], added=added)
    kept = unpack_poison(pack_poison(points)).apply(clean)
    assert torch.equal(kept.images(), points.apply(clean).images())
    assert len(kept) == 40 + 2 * added


def test_repeated_poisons_count_as_often_as_they_occur_and_widen_the_interval() -> None:
    """Second route to the area: Mann-Whitney's U of scipy."""
    clean = toy.dataset(40)
    rows = torch.tensor([3, 7, 9])
    thrice = Poison(rows, clean.batch(rows), clean.labels[rows], boost=3)
    scores = torch.rand(46, generator=Seed(0).generator())
    scores[rows] += 0.3
    scores[40:] = scores[rows].repeat(2)
    gone = scores > 0.8
    found = told(scores, gone, thrice, thrice.apply(clean))
    poisoned = np.isin(np.arange(46), [3, 7, 9, *range(40, 46)])
    u = stats.mannwhitneyu(scores[poisoned], scores[~poisoned]).statistic
    assert found["auc"]["value"] == pytest.approx(u / (9 * 37))
    assert found["poisoned_removed"]["value"] == pytest.approx(float(gone[poisoned].float().mean()))
    assert found["auc"]["low"] < auc(scores[poisoned].tolist(), scores[~poisoned].tolist()).low
    assert found["poisoned_removed"]["low"] < proportion(gone[poisoned]).low


def test_without_poison_there_is_nothing_to_tell() -> None:
    clean = toy.dataset(20)
    none = Poison(torch.zeros(0, dtype=torch.int64), clean.batch(torch.zeros(0, dtype=torch.int64)), clean.labels[:0])
    found = told(torch.arange(20.0), torch.arange(20) > 17, none, none.apply(clean))
    assert (found["auc"], found["poisoned_removed"]) == (None, None)
    assert found["clean_removed"]["value"] == 0.1


def test_too_small_a_share_is_refused_by_name(game: Robustness, tmp_path: Any) -> None:
    tiny = game.replace(
        sanitizer=TopLeft(),
        removed=0.001,
        data={"kind": "digits_in_the_wild", "train": 60, "test": 40},
        attack={"kind": "badnets", "poisons": 3},
        trainer={**WORLD["trainer"], "epochs": 1},
        trusted=20,
    )
    with pytest.raises(SettingError, match=r"removed: 0\.001 of 60 rows is 0 rows"):
        tiny.play(Referee(Store(tmp_path)))
