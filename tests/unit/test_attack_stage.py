"""When an attack stamps its trigger: before the victim's augmentation, or once after it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bezoar.attacks.badnets import BadNets
from bezoar.errors import SettingError
from bezoar.games.referee import Made, Recipe, Referee
from bezoar.lab import Lab
from bezoar.records import Poison, as_float, as_stored
from bezoar.roles import Splits
from bezoar.seed import Seed
from bezoar.store import Store
from bezoar.testing import toy
from bezoar.training.batches import Batch, batches
from bezoar.training.sgd import Sgd


def _seen_in_training(attack: BadNets, lab: Lab) -> tuple[Poison, list[Batch]]:
    """A poison, and four epochs of the batches that the victim's recipe trains on."""
    clean = toy.dataset()
    poison = attack.poison(clean, lab, toy.SEED)
    augmentation = Sgd(augmentation="crop_flip").augmentation
    victim = poison.apply(clean)
    return poison, list(batches(victim, 64, Seed(3), device=lab.device, epochs=4, augmentation=augmentation))


def test_a_trigger_that_is_stamped_before_augmentation_moves_with_the_image():
    lab = Lab(architecture=toy.architecture(), trainer=Sgd(augmentation="crop_flip"))
    poison, seen = _seen_in_training(BadNets(poisons=9), lab)
    stored = torch.stack([batch.images[batch.rows.argsort()][poison.rows] for batch in seen])
    assert not bool((stored == as_float(poison.images)).flatten(2).all(2).all())


def test_after_augmentation_a_poison_is_frozen_and_everything_else_is_augmented_anew():
    """The released code's order: every epoch shows the same poisoned pixels, the trigger in its corner."""
    lab = Lab(architecture=toy.architecture(), trainer=Sgd(augmentation="crop_flip"))
    attack = BadNets(poisons=9, stage="post_augment_frozen")
    poison, seen = _seen_in_training(attack, lab)
    epochs = torch.stack([batch.images[batch.rows.argsort()] for batch in seen])
    assert torch.equal(epochs[:, poison.rows], as_float(poison.images).expand(4, -1, -1, -1, -1))
    others = torch.ones(64, dtype=torch.bool)
    others[poison.rows] = False
    assert not bool((epochs[0, others] == epochs[1, others]).flatten(1).all(1).all())
    assert torch.equal(
        as_stored(attack.trigger.stamp(as_float(poison.images), poison.rows, lab, Seed(0))), poison.images
    )


def test_a_frozen_poison_is_one_draw_of_the_victim_s_augmentation_for_each_row():
    lab = Lab(architecture=toy.architecture(), trainer=Sgd(augmentation="flip"))
    attack, clean = BadNets(poisons=30, stage="post_augment_frozen"), toy.dataset()
    poison = attack.poison(clean, lab, toy.SEED)
    before = as_float(clean.batch(poison.rows))
    plain, mirrored = (
        (as_stored(attack.trigger.stamp(images, poison.rows, lab, Seed(0))) == poison.images).flatten(1).all(1)
        for images in (before, before.flip(3))
    )
    assert bool((plain | mirrored).all())
    assert 5 < int(mirrored.sum()) < 25
    assert not torch.equal(plain, mirrored)


def test_freezing_needs_a_recipe_whose_augmentation_is_known():
    with pytest.raises(
        SettingError, match=r"attack\.stage: 'post_augment_frozen' needs a victim whose trainer is 'sgd'"
    ):
        BadNets(poisons=9, stage="post_augment_frozen").poison(toy.dataset(), Lab(), toy.SEED)


def test_another_augmentation_is_another_poison_in_the_store_where_the_stage_reads_it(tmp_path: Path):
    pool = Made(Splits(toy.dataset(), toy.unseen()), "toy")
    referees = [
        Referee(Store(tmp_path)).publishing(Recipe(toy.architecture(), Sgd(augmentation=augmentation)))
        for augmentation in ("none", "crop_flip")
    ]
    frozen = BadNets(poisons=9, stage="post_augment_frozen")
    one, other = (referee.collect(pool, frozen, toy.SEED) for referee in referees)
    assert one.address != other.address
    assert not torch.equal(one.value.images, other.value.images)
    assert other.value.settled
    one, other = (referee.collect(pool, BadNets(poisons=9), toy.SEED) for referee in referees)
    assert one.address == other.address


def test_the_default_stage_leaves_addresses_as_they_were_before_there_was_a_choice():
    assert "stage" not in BadNets().identity()
    assert BadNets(stage="post_augment_frozen").identity()["stage"] == "post_augment_frozen"
    assert BadNets().describe()["stage"] == "pre_augment"
