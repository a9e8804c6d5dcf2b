"""The claims of scikit-learn's plain digits as a data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bezoar.component import build
from bezoar.data.digits import Digits, in_turn
from bezoar.errors import SettingError
from bezoar.roles import DataSource, Splits
from bezoar.seed import Seed


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Digits().load(())


def test_both_halves_together_are_scikit_learns_images_each_once(splits: Splits) -> None:
    """Second route: as rows of numbers with their labels, sorted."""
    ours = np.concatenate(
        [np.column_stack([half.images().flatten(1), half.labels]) for half in (splits.train, splits.test)]
    )
    digits = load_digits()
    theirs = np.column_stack([np.floor(digits.data * 255 / 16 + 0.5), digits.target])
    assert (len(splits.train), len(splits.test), len(theirs)) == (1297, 500, 1797)
    assert np.array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert len(np.unique(ours, axis=0)) == len(theirs)  # no image occurs twice, so none is in both halves


def test_images_are_grey_8x8_and_use_the_whole_range(splits: Splits) -> None:
    for half in (splits.train, splits.test):
        assert half.shape == (1, 8, 8)
        assert half.classes == tuple("0123456789")
        images = half.images()
        assert (images.dtype, int(images.min()), int(images.max())) == (torch.uint8, 0, 255)


@pytest.mark.parametrize(("train", "test"), [(1297, 500), (300, 100), (40, 20)])
def test_every_size_is_stratified(train: int, test: int) -> None:
    shares = np.bincount(load_digits().target) / 1797
    drawn = Digits(train=train, test=test).load(())
    for half in (drawn.train, drawn.test):
        counts = torch.bincount(half.labels, minlength=10).numpy()
        assert np.abs(counts - shares * len(half)).max() <= 1


def test_a_smaller_draw_is_part_of_every_larger_one(splits: Splits) -> None:
    small = Digits(train=30, test=25).load(())
    assert torch.equal(small.train.images(), splits.train.images()[:30])
    assert torch.equal(small.test.labels, splits.test.labels[:25])


def test_the_order_is_drawn() -> None:
    labels = torch.arange(100) % 10
    assert not torch.equal(in_turn(labels, Seed(0)), in_turn(labels, Seed(1)))
    assert in_turn(labels, Seed(0)).sort().values.tolist() == list(range(100))


@pytest.mark.parametrize(("half", "count"), [("train", 1298), ("test", 501), ("test", 3)])
def test_a_size_that_cannot_be_had_is_refused_by_name(half: str, count: int) -> None:
    with pytest.raises(SettingError, match=rf"{half}: .*, but it is {count}"):
        build(DataSource, {"kind": "digits", half: count})
