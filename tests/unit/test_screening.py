"""Screening: the verdict that trusted rows give, by a second route, and how often it is wrong."""
# ruff: noqa: ARG002 - the signature is the role's

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor

from bezoar.errors import DataError, SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset
from bezoar.roles import Sanitizer
from bezoar.screening import Screening, calibrate, joined, screen
from bezoar.seed import Seed
from bezoar.testing import toy


class Scripted(Sanitizer):
    """It says what a test wrote down."""

    kind: ClassVar[str] = "scripted"
    answer: ClassVar[Tensor]

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Tensor:
        assert len(data) == len(self.answer)
        return self.answer


def asked(scores: Tensor, trusted: int = 0, *, removed: float = 0.1, seed: int = 0) -> Screening:
    Scripted.answer = scores
    reference = toy.dataset(trusted, "trusted") if trusted else None
    data = toy.dataset(len(scores) - trusted)
    return screen(toy.suspect(), data, reference, Scripted(), Lab(), Seed(seed), removed=removed)


def test_without_trusted_images_rows_are_ranked_and_the_verdict_is_open():
    found = asked(torch.arange(40.0))
    assert (found.verdict, found.calibration) == ("open", None)
    assert found.order.tolist() == list(range(39, -1, -1))
    assert found.removed.nonzero()[:, 0].tolist() == [36, 37, 38, 39]
    assert "without trusted images" in found.reason


def test_rows_that_no_trusted_row_resembles_are_suspicious_and_trusted_rows_are_never_named():
    """200 rows of which 20 stand out, beside 100 trusted ones: 30 are named, 10 of them by chance."""
    scores = torch.rand(300, generator=Seed(2).generator())
    scores[:20] += 5
    found = asked(scores, 100)
    assert found.verdict == "suspicious"
    assert found.removed[:20].all()
    assert (len(found.scores), len(found.order), len(found.removed)) == (200, 200, 200)
    assert found.calibration is not None
    assert int(found.removed.sum()) + found.calibration.named == 30


def test_with_one_class_the_p_value_is_the_lower_tail_of_fishers_exact_test():
    named = torch.arange(60) % 4 == 0
    named[50:] = False
    named[52] = True
    found = calibrate(named, 40, torch.zeros(60, dtype=torch.int64))
    mine, others = int(named[40:].sum()), int(named[:40].sum())
    table = [[mine, 20 - mine], [others, 40 - others]]
    assert found.p_value == pytest.approx(stats.fisher_exact(table, "less")[1])
    assert found.expected == pytest.approx(20 * int(named.sum()) / 60)


def test_the_p_value_is_what_shuffling_within_classes_gives():
    """Second route: 20,000 permutations of who is trusted, class by class; the classes differ in how many are."""
    labels = torch.tensor([0] * 30 + [1] * 30 + [0] * 20 + [1] * 4)
    named = torch.rand(84, generator=Seed(3).generator()) < torch.where(labels == 0, 0.2, 0.5)
    named[60:70] = False
    found = calibrate(named, 60, labels)
    drawn, generator = torch.zeros(20000), Seed(4).generator()
    for label, known in ((0, 20), (1, 4)):
        marks = named[labels == label].float()
        order = torch.rand(20000, len(marks), generator=generator).argsort(1)[:, :known]
        drawn += marks[order].sum(1)
    assert found.p_value == pytest.approx(float((drawn <= found.named).float().mean()), abs=0.01)
    assert found.smallest == pytest.approx(float((drawn == 0).float().mean()), abs=0.01)


def test_of_clean_data_no_more_than_one_in_twenty_are_called_suspicious_ties_or_not():
    """400 data sets whose rows are like the trusted ones; with whole-number scores most rows tie at the cut."""
    for spread in (1000, 3):
        draws = torch.randint(spread, (400, 160), generator=Seed(spread).generator()).float()
        wrong = sum(
            asked(each, 60, removed=0.2, seed=number).verdict == "suspicious" for number, each in enumerate(draws)
        )
        assert wrong <= stats.binom.ppf(0.999, 400, 0.05)


def test_too_few_trusted_images_leave_the_verdict_open():
    found = asked(torch.arange(44.0).flip(0), 4)
    assert found.verdict == "open"
    assert "too few" in found.reason


def test_joined_rows_are_those_of_both_in_any_order():
    first, second = toy.dataset(10), toy.dataset(6, "trusted")
    both = joined(first, second)
    rows = torch.tensor([12, 0, 15, 9, 10])
    expected = torch.stack(
        [second.images()[2], first.images()[0], second.images()[5], *first.images()[9:], second.images()[0]]
    )
    assert both.batch(rows).equal(expected)
    assert both.labels.equal(torch.cat([first.labels, second.labels]))


def test_trusted_images_of_other_classes_are_refused():
    other = toy.dataset(6, "trusted")
    with pytest.raises(DataError, match="cannot be joined"):
        joined(toy.dataset(), Dataset(other.labels % 2, ("a", "b"), other.shape, other.reader))


def test_a_share_that_names_nobody_is_refused():
    with pytest.raises(SettingError, match=r"removed: 0\.01 of 20 rows is 0 rows"):
        asked(torch.arange(20.0), removed=0.01)
