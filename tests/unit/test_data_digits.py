"""The claims of the embedded data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from bezoar.component import build
from bezoar.data import digits_in_the_wild
from bezoar.data.digits_in_the_wild import DigitsInTheWild
from bezoar.errors import SettingError
from bezoar.records import Dataset
from bezoar.roles import DataSource, Splits

DIGITS = 1797


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Large enough that every source digit is used."""
    return DigitsInTheWild(train=1400, test=500).load(())


def groups(data: Dataset) -> torch.Tensor:
    assert data.groups is not None
    return data.groups


def test_no_source_digit_is_in_both_splits(splits: Splits) -> None:
    train, test = set(groups(splits.train).tolist()), set(groups(splits.test).tolist())
    assert not train & test
    assert train | test == set(range(DIGITS))


def test_a_label_is_that_of_its_source_digit(splits: Splits) -> None:
    target = load_digits().target
    for data in (splits.train, splits.test):
        assert data.labels.tolist() == target[groups(data).numpy()].tolist()


def test_sizes_shapes_and_classes_are_as_asked(splits: Splits) -> None:
    for data, count in ((splits.train, 1400), (splits.test, 500)):
        images = data.images()
        assert images.shape == (count, 3, 32, 32) == (len(data), *data.shape)
        assert images.dtype == torch.uint8
        assert data.classes == tuple("0123456789")


def test_classes_are_balanced(splits: Splits) -> None:
    for data in (splits.train, splits.test):
        shares = torch.bincount(data.labels, minlength=10) / len(data)
        assert shares.min() > 0.07
        assert shares.max() < 0.13


def test_the_default_has_several_thousand_images_for_training_and_1500_for_testing() -> None:
    assert (DigitsInTheWild().train, DigitsInTheWild().test) == (5200, 1500)


def test_the_same_settings_give_the_same_images_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second = (DigitsInTheWild(train=100, test=40).load(()) for _ in range(2))
    assert torch.equal(first.train.images(), second.train.images())
    assert torch.equal(first.test.images(), second.test.images())
    assert torch.equal(groups(first.train), groups(second.train))
    assert torch.equal(torch.get_rng_state(), state)


def test_one_split_does_not_depend_on_the_size_of_the_other() -> None:
    first, second = DigitsInTheWild(train=100, test=40).load(()), DigitsInTheWild(train=100, test=80).load(())
    assert torch.equal(first.train.images(), second.train.images())


def test_the_two_parts_of_a_photograph_have_nothing_in_common() -> None:
    for photograph in map(np.asarray, load_sample_images().images):
        left, right = digits_in_the_wild._divide(photograph)
        assert left.shape[1] + right.shape[1] == photograph.shape[1]
        assert np.array_equal(np.concatenate([left, right], axis=1), photograph)
        assert right.shape[1] / photograph.shape[1] == pytest.approx(0.25, abs=0.01)


def test_backgrounds_of_training_images_come_from_the_left_of_a_photograph_and_of_test_images_from_the_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second route: photographs that are black left of the cut and white right of it."""
    photographs = load_sample_images()
    photographs.images = [image.copy() for image in photographs.images]
    for photograph in photographs.images:
        cut = digits_in_the_wild._divide(photograph)[0].shape[1]
        photograph[:, :cut], photograph[:, cut:] = 0, 255
    monkeypatch.setattr(digits_in_the_wild, "load_sample_images", lambda: photographs)
    drawn = DigitsInTheWild(train=200, test=100).load(())
    assert drawn.train.images().flatten(1).mode().values.eq(0).all()
    assert drawn.test.images().flatten(1).mode().values.eq(255).all()


def test_a_split_of_hardly_any_images_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match=r"test: .*20"):
        build(DataSource, {"kind": "digits_in_the_wild", "test": 5})
