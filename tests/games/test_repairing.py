"""The loop around a repair: looking, choosing, stopping."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bezoar.defenses.repairers.batchnorm_recalibration import BatchNormRecalibration
from bezoar.errors import SettingError
from bezoar.games.repairing import Point, acceptable, admissible, blind_step, cross_validated, final, oracle
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.owner import repair
from bezoar.records import Estimate, Trusted
from bezoar.seed import Seed


def point(step: int, lost: float, success: float) -> Point:
    def estimate(value: float) -> Estimate:
        return Estimate(value, value, value, 100, "images")

    return Point(step, estimate(0.9 - lost), estimate(success), estimate(lost))


CURVE = [point(0, 0.0, 1.0), point(10, 0.05, 0.0), point(20, 0.02, 0.3), point(30, 0.01, 0.4), point(40, 0.03, 0.1)]


def test_a_point_on_the_edge_of_the_budget_is_admissible() -> None:
    assert [p.step for p in admissible(CURVE, 0.02)] == [0, 20, 30]


def test_the_oracle_takes_the_lowest_success_within_the_budget() -> None:
    assert oracle(CURVE, 0.02).step == 20


def test_final_takes_the_last_within_the_budget() -> None:
    assert final(CURVE, 0.02).step == 30


def test_without_any_admissible_repair_the_suspect_stays() -> None:
    assert oracle(CURVE[:2], 0.02).step == final(CURVE[:2], 0.02).step == 0


@pytest.mark.parametrize(
    ("lost", "won", "expected"), [(0, 0, True), (3, 0, True), (5, 0, False), (5, 3, True), (12, 3, False)]
)
def test_held_out_images_accept_what_a_one_sided_test_cannot_tell_from_the_budget(
    lost: int, won: int, expected: bool
) -> None:
    """Of 40 images: accepted if lost - won - .02 * 40 <= 1.645 sqrt(lost + won), reckoned here by hand."""
    before = torch.zeros(40, dtype=torch.bool)
    after = before.clone()
    before[:lost] = True
    after[lost : lost + won] = True
    assert (lost - won - 0.8 <= 1.645 * math.sqrt(lost + won)) == expected
    assert acceptable(before, after, 0.02) == expected


def test_point_survives_json() -> None:
    assert Point.from_json(CURVE[2].as_json()) == CURVE[2]


class Lookup(Classifier):
    """It knows some images by their first pixel and is wrong about all others."""

    def __init__(self, known: list[int]) -> None:
        super().__init__(("even", "odd"), (0.0,), (1.0,))
        self.known = set(known)

    @property
    def head(self) -> nn.Module:
        return nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        numbers = (images[:, 0, 0, 0] * 255).round().long()
        knows = torch.tensor([int(number) in self.known for number in numbers])
        return functional.one_hot((numbers + ~knows) % 2, 2).float()

    def trace(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        return [self.features(images)], self(images)


class Memoriser(BatchNormRecalibration):
    """From step `learns` on its model is right about the trusted images it was given, and about no other."""

    learns: int = 3
    steps: int = 4

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        del lab, seed
        learnt = Lookup(trusted.images[:, 0, 0, 0].tolist())
        yield from (suspect if step < self.learns else learnt for step in range(1, self.steps + 1))


EVERYTHING = list(range(23))


def numbered() -> Trusted:
    """23 images that carry their number in every pixel; its parity is the label."""
    numbers = torch.arange(23)
    return Trusted(numbers.to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2), numbers % 2, ("even", "odd"))


@pytest.mark.parametrize("folds", [2, 5, 23])
def test_a_repair_is_judged_by_every_trusted_image_once_and_never_by_one_it_has_seen(folds: int) -> None:
    """Were any image judged by a model whose repair had seen it, the memoriser would be right about it."""
    looks = cross_validated(Memoriser(), Lookup(EVERYTHING), numbered(), 1, Lab(), Seed(0), budget=0.02, folds=folds)
    assert [look.step for look in looks] == [1, 2, 3, 4]
    assert [(look.accuracy.value, look.accuracy.n) for look in looks] == [(1, 23), (1, 23), (0, 23), (0, 23)]
    assert [look.lost.value for look in looks] == [0, 0, 1, 1]
    assert [look.accepted for look in looks] == [True, True, False, False]


def test_a_defender_stops_at_the_last_accepted_step_and_keeps_the_suspect_if_there_is_none() -> None:
    looks = cross_validated(Memoriser(), Lookup(EVERYTHING), numbered(), 1, Lab(), Seed(0), budget=0.02, folds=4)
    assert blind_step(looks) == 2
    assert blind_step(looks[2:]) == blind_step([]) == 0


def test_an_owner_gets_the_model_of_the_chosen_step_repaired_with_all_trusted_images() -> None:
    suspect = Lookup([])  # wrong about everything, so that no repair can lose accuracy
    done = repair(suspect, numbered(), Memoriser(), Lab(), Seed(0), every=1, folds=4)
    assert done.step == 4
    assert isinstance(done.model, Lookup)
    assert done.model.known == set(EVERYTHING)


def test_an_owner_keeps_the_suspect_where_no_step_is_accepted() -> None:
    suspect = Lookup(EVERYTHING)
    done = repair(suspect, numbered(), Memoriser(learns=1), Lab(), Seed(0), every=1, folds=4)
    assert done.step == 0
    assert done.model is suspect


@pytest.mark.parametrize("folds", [1, 24])
def test_impossible_folds_are_refused(folds: int) -> None:
    with pytest.raises(SettingError, match=f"folds: {folds} is not between 2 and .* 23"):
        repair(Lookup([]), numbered(), Memoriser(), Lab(), Seed(0), folds=folds)
