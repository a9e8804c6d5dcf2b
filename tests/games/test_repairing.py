"""The loop around a repair: looking, choosing, stopping."""

from __future__ import annotations

import math

import pytest
import torch

from bezoar.games.repairing import Point, acceptable, admissible, final, oracle
from bezoar.records import Estimate


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
