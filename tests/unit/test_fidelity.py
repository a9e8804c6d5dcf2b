"""How faithful a reconstructed trigger is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bezoar.measure.fidelity import change, fidelity, overlap
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Inspection, Probe
from bezoar.seed import Seed

CLASSES = ("a", "b", "c", "d")


class Reader(Classifier):
    """A model that takes one pixel's value, in units of 1/255, for the class."""

    def __init__(self, column: int) -> None:
        super().__init__(list(CLASSES), (0.0,), (1.0,))
        self.column = column
        self.last = torch.nn.Identity()

    @property
    def head(self) -> torch.nn.Module:
        return self.last

    def features(self, images: Tensor) -> Tensor:
        named = (images[:, 0, 0, self.column] * 255).round().long()
        return torch.nn.functional.one_hot(named.clamp(0, 3), len(CLASSES)).float()

    def trace(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        return [images], self(images)


def test_the_overlap_of_two_maps_is_the_mass_that_they_share() -> None:
    first, second = (torch.rand(5, 7, generator=(Seed(0) / name).generator()) for name in ("one", "other"))
    one, other = (first / first.sum()).flatten().tolist(), (second / second.sum()).flatten().tolist()
    assert overlap(first, second) == pytest.approx(sum(min(a, b) for a, b in zip(one, other, strict=True)), abs=1e-6)
    assert overlap(first, second) == pytest.approx(overlap(second * 3, first), abs=1e-6)


def test_the_overlap_runs_from_apart_to_alike() -> None:
    left, right = torch.zeros(4, 4), torch.zeros(4, 4)
    left[:, :2], right[:, 2:] = 1, 0.3
    patch = torch.zeros(4, 4)
    patch[0, 0] = 1
    assert overlap(left, left * 5) == pytest.approx(1)
    assert overlap(left, right) == 0
    assert overlap(patch, torch.ones(4, 4)) == pytest.approx(1 / 16)
    assert overlap(patch, torch.zeros(4, 4)) == 0  # a trigger that changes nothing lies nowhere


def test_a_change_is_measured_pixel_by_pixel() -> None:
    before = torch.full((2, 3, 2, 2), 100, dtype=torch.uint8)
    after = before.clone()
    after[0, 0, 1, 1], after[1, 2, 1, 1] = 151, 49
    assert change(before, after)[1, 1] == pytest.approx(2 * 51 / 255 / 6)
    assert change(before, after).sum() == pytest.approx(change(before, after)[1, 1])


def world() -> tuple[Dataset, Probe]:
    """Eight dark images; the attacker writes class 2 into the first pixel of all of them."""
    images, labels = torch.zeros(8, 1, 2, 3, dtype=torch.uint8), torch.arange(8) % 4
    attacked = images.clone()
    attacked[:, :, 0, 0] = 2
    rows = torch.arange(8)
    return Dataset.in_memory(images, labels, CLASSES), Probe(rows, attacked, torch.full((8,), 2))


def reconstructed(column: int) -> Inspection:
    """An answer that writes class 2 into one pixel."""
    triggers = torch.zeros(4, 1, 2, 3)
    triggers[2, 0, 0, column] = 2 / 255
    return Inspection(torch.zeros(4), triggers)


def test_the_attackers_own_trigger_is_wholly_faithful_and_nothing_to_the_twin() -> None:
    test, probe = world()
    found = fidelity(reconstructed(0), 2, Reader(0), Reader(1), test, probe)
    assert found is not None
    assert (found.success.value, found.twin_success.value, found.overlap) == (1, 0, pytest.approx(1))
    assert found.success.n == 6  # images of the attacked class itself do not count


def test_a_trigger_elsewhere_shares_no_pixel_and_is_told_by_the_twin() -> None:
    test, probe = world()
    found = fidelity(reconstructed(1), 2, Reader(0), Reader(1), test, probe)
    assert found is not None
    assert (found.success.value, found.twin_success.value, found.overlap) == (0, 1, 0)


def test_without_a_reconstructed_trigger_there_is_nothing_to_compare() -> None:
    test, probe = world()
    assert fidelity(Inspection(torch.zeros(4)), 2, Reader(0), Reader(1), test, probe) is None
