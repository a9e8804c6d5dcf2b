"""What every trigger must hold to."""

from __future__ import annotations

import torch
from torch import Tensor

from bezoar.roles import Trigger
from bezoar.testing import toy
from bezoar.testing.watch import Claim, bits, nothing_global_changes, other_generators, require

ROWS = torch.tensor([3, 41, 12, 5, 60, 27])


def the_shape_is_kept(trigger: Trigger) -> None:
    """And the type: float32 stays float32."""
    images, stamped = toy.photographs(), _stamp(trigger)
    require(stamped.shape == images.shape, f"{tuple(images.shape)} became {tuple(stamped.shape)}")
    require(stamped.dtype == images.dtype, f"{images.dtype} became {stamped.dtype}")


def stamped_images_are_images(trigger: Trigger) -> None:
    """Values in [0, 1], on black and white ones too."""
    stamped = _stamp(trigger)
    low, high = float(stamped.min()), float(stamped.max())
    require(low >= 0 and high <= 1, f"values reach from {low} to {high}")  # false for NaN as well


def the_trigger_can_be_seen(trigger: Trigger) -> None:
    """It changes something in some image."""
    require(not torch.equal(_stamp(trigger), toy.photographs()), "no image changed")


def the_images_are_left_alone(trigger: Trigger) -> None:
    """The trigger is stamped on a copy."""
    images = toy.photographs()
    before = bits(images)
    trigger.stamp(images, ROWS, toy.armed(trigger), toy.SEED)
    require(bits(images) == before, "the images that were given changed")


def the_same_seed_stamps_alike(trigger: Trigger) -> None:
    """Whatever the global generators are at."""
    first = _stamp(trigger)
    with other_generators():
        require(torch.equal(first, _stamp(trigger)), "two runs from one seed differ")


def a_row_is_stamped_alike_in_any_batch(trigger: Trigger) -> None:
    """Randomness is keyed by row: neither the size of a batch nor the order in it matters."""
    images, whole = toy.photographs(), _stamp(trigger)
    lab = toy.armed(trigger)
    halves = [trigger.stamp(images[part], ROWS[part], lab, toy.SEED) for part in torch.arange(len(ROWS)).split(3)]
    require(torch.equal(torch.cat(halves), whole), "two halves differ from the whole")
    back = torch.arange(len(ROWS)).flip(0)
    turned = trigger.stamp(images[back], ROWS[back], lab, toy.SEED)[back]
    require(torch.equal(turned, whole), "another order differs")


def stamping_leaves_global_state_alone(trigger: Trigger) -> None:
    """Generators, gradient mode and the rest."""
    with nothing_global_changes():
        _stamp(trigger)


def training_images_are_stamped_alike_in_any_batch(trigger: Trigger) -> None:
    """What training images carry keeps the same promises, where it is not what test images carry."""
    if type(trigger).stamp_training is Trigger.stamp_training:
        return
    images, lab = toy.photographs(), toy.armed(trigger)
    before = bits(images)
    whole = trigger.stamp_training(images, ROWS, lab, toy.SEED)
    require(bits(images) == before, "the images that were given changed")
    require(whole.shape == images.shape and float(whole.min()) >= 0 and float(whole.max()) <= 1, "no images came out")
    halves = [
        trigger.stamp_training(images[part], ROWS[part], lab, toy.SEED) for part in torch.arange(len(ROWS)).split(3)
    ]
    require(torch.equal(torch.cat(halves), whole), "two halves differ from the whole")


def _stamp(trigger: Trigger) -> Tensor:
    return trigger.stamp(toy.photographs(), ROWS, toy.armed(trigger), toy.SEED)


CLAIMS: tuple[Claim, ...] = (
    the_shape_is_kept,
    stamped_images_are_images,
    the_trigger_can_be_seen,
    the_images_are_left_alone,
    the_same_seed_stamps_alike,
    a_row_is_stamped_alike_in_any_batch,
    stamping_leaves_global_state_alone,
    training_images_are_stamped_alike_in_any_batch,
)
