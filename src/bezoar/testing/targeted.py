"""What every attack without a trigger must hold to."""

from __future__ import annotations

import torch

from bezoar.records import Dataset, Poison
from bezoar.roles import TargetedPoisoning
from bezoar.testing import toy
from bezoar.testing.watch import (
    Claim,
    bits,
    nothing_global_changes,
    other_generators,
    pixels,
    require,
    require_unchanged,
    state,
)

LEVELS = 0.5
"""By so many of 255 levels poisons may differ on average when their batch is another one, whose sums are rounded
otherwise."""


def the_same_seed_crafts_the_same_poisons(attack: TargetedPoisoning) -> None:
    """Whatever the global generators are at."""
    first = _contents(_poisons(attack, _targets(attack)))
    with other_generators():
        require_unchanged(first, _contents(_poisons(attack, _targets(attack))), "the poisons' ")


def each_target_has_poisons_of_its_own(attack: TargetedPoisoning) -> None:
    """One set for each, with the intended label, in distinct rows of the data."""
    targets, clean = _targets(attack), toy.dataset()
    made = _poisons(attack, targets)
    require(len(made) == len(targets), f"{len(targets)} targets gave {len(made)} poisons")
    for one in made:
        require(bool((one.labels == attack.intended).all()), "a label is not the intended one")
        require(bool((clean.labels[one.rows] == attack.intended).all()), "a base image is not of the intended class")
        require(len(one.rows) == len(one.rows.unique()), "a row is poisoned twice")
        require(one.images.dtype == torch.uint8, f"poisons are {one.images.dtype}, not stored images")
        require(one.images.shape == (len(one.rows), *clean.shape), f"poisons have the shape {tuple(one.images.shape)}")
    require(not made[0].images.equal(made[1].images), "two targets have the same poisons")


def targets_do_not_notice_each_other(attack: TargetedPoisoning) -> None:
    """A target's poisons are those that it has alone, but for rounding."""
    targets = _targets(attack)
    together = _poisons(attack, targets)
    for number in range(len(targets)):
        (alone,) = _poisons(attack, targets.take(torch.tensor([number])))
        apart = (alone.images.float() - together[number].images.float()).abs().mean()
        require(float(apart) < LEVELS, f"target {number} has other poisons alone, by {float(apart):.2f} levels")


def crafting_yields_one_live_object_and_no_more_than_its_length(attack: TargetedPoisoning) -> None:
    """The referee may look at every step, or give up at any."""
    lab = toy.armed(attack)
    yielded = list(attack.craft(toy.dataset(), _targets(attack), lab, toy.SEED))
    require(0 < len(yielded) <= attack.length, f"{len(yielded)} steps were yielded of {attack.length}")
    require(all(one is yielded[0] for one in yielded), "the object that is yielded changes")
    losses = yielded[-1].losses
    require(len(losses) == len(_targets(attack)) and bool(losses.isfinite().all()), "a target has no finite loss")


def an_abandoned_attack_leaves_nothing_behind(attack: TargetedPoisoning) -> None:
    """Generators, modes, data and substitutes are as before, after the first step as after the last."""
    lab, clean = toy.armed(attack), toy.dataset()
    before = pixels(clean), [state(one) for one in lab.substitutes]
    with nothing_global_changes():
        next(iter(attack.craft(clean, _targets(attack), lab, toy.SEED)))
    require_unchanged(before[0], pixels(clean), "clean ")
    for was, one in zip(before[1], lab.substitutes, strict=True):
        require_unchanged(was, state(one), "a substitute's ")


def _targets(attack: TargetedPoisoning) -> Dataset:
    """Two images of other classes."""
    unseen = toy.unseen()
    return unseen.take((unseen.labels != attack.intended).nonzero()[:2, 0])


def _poisons(attack: TargetedPoisoning, targets: Dataset) -> list[Poison]:
    yielded = list(attack.craft(toy.dataset(), targets, toy.armed(attack), toy.SEED))
    require(len(yielded) > 0, "no step was yielded")
    return yielded[-1].poisons()


def _contents(poisons: list[Poison]) -> dict[str, object]:
    contents: dict[str, object] = {}
    for at, one in enumerate(poisons):
        contents |= {f"images of {at}": bits(one.images), f"rows of {at}": bits(one.rows)}
    return contents


CLAIMS: tuple[Claim, ...] = (
    the_same_seed_crafts_the_same_poisons,
    each_target_has_poisons_of_its_own,
    targets_do_not_notice_each_other,
    crafting_yields_one_live_object_and_no_more_than_its_length,
    an_abandoned_attack_leaves_nothing_behind,
)
