"""What every attack must hold to."""

from __future__ import annotations

import torch
from torch import Tensor

from bezoar.errors import SettingError
from bezoar.records import Dataset, Poison, Probe
from bezoar.roles import Backdoor, CodePoisoning, DataPoisoning, Shipment
from bezoar.testing import toy
from bezoar.testing.watch import (
    Claim,
    bits,
    nothing_global_changes,
    other_generators,
    pixels,
    require,
    require_unchanged,
)

FAR_TOO_MANY = 10**6


def the_same_seed_gives_the_same_poison(attack: DataPoisoning) -> None:
    """Whatever the global generators are at."""
    first = _contents(_poison(attack))
    with other_generators():
        require_unchanged(first, _contents(_poison(attack)), "the poison's ")


def another_seed_chooses_other_rows(attack: DataPoisoning) -> None:
    """The rows are drawn."""
    other = attack.poison(toy.dataset(), toy.armed(attack), toy.SEED / "other")
    require(_rows(_poison(attack)) != _rows(other), "two seeds chose the same rows")


def data_read_on_demand_give_the_same_poison(attack: DataPoisoning) -> None:
    """An image folder is as good as a tensor."""
    clean = toy.dataset()
    lazy = Dataset(clean.labels, clean.classes, clean.shape, lambda rows: clean.images()[rows])
    made = attack.poison(lazy, toy.armed(attack), toy.SEED)
    require_unchanged(_contents(_poison(attack)), _contents(made), "the poison's ")


def the_clean_data_are_left_alone(attack: DataPoisoning) -> None:
    """Poisoning and applying the poison change no image and no label of the clean data."""
    clean = toy.dataset()
    before = pixels(clean)
    attack.poison(clean, toy.armed(attack), toy.SEED).apply(clean).images()
    require_unchanged(before, pixels(clean), "clean ")


def poisoning_leaves_global_state_alone(attack: DataPoisoning) -> None:
    """Generators, gradient mode and the rest."""
    with nothing_global_changes():
        _poison(attack)


def the_budget_is_exact_and_no_row_is_poisoned_twice(attack: DataPoisoning) -> None:
    """As many distinct rows of the data, as `poisons` says; points that are added may share the rows they are from."""
    rows = _poison(attack).rows
    budget = getattr(attack, "poisons", len(rows))
    require(len(rows) == budget, f"{len(rows)} rows are poisoned with a budget of {budget}")
    require(_poison(attack).added or len(torch.unique(rows)) == len(rows), "a row is poisoned twice")
    require(not len(rows) or bool((rows >= 0).all() and (rows < len(toy.dataset())).all()), "a row is not of the data")


def poisoned_images_are_stored_like_clean_ones(attack: DataPoisoning) -> None:
    """8 bits a pixel, the shape of the data, and labels that exist."""
    poison, count = _poison(attack), len(toy.CLASSES)
    require(poison.images.dtype == torch.uint8, f"images are {poison.images.dtype}")
    require(
        poison.images.shape == (len(poison.rows), *toy.SHAPE), f"images have the shape {tuple(poison.images.shape)}"
    )
    require(poison.labels.dtype == torch.int64, f"labels are {poison.labels.dtype}")
    require(poison.labels.shape == poison.rows.shape, "there is not one label for each row")
    require(bool((poison.labels >= 0).all() and (poison.labels < count).all()), "a label is no class")


def rows_outside_the_poison_stay_as_they_were(attack: DataPoisoning) -> None:
    """Images bit by bit, and labels; poisoned items are there `boost` times and nothing else is added.

    Points that are added leave every row as it was, those they were made from too.
    """
    clean, poison = toy.dataset(), _poison(attack)
    victim = poison.apply(clean)
    others = torch.ones(len(clean), dtype=torch.bool)
    if not poison.added:
        others[poison.rows] = False
    length = len(clean) + (poison.boost - (not poison.added)) * len(poison.rows)
    require(len(victim) == length, f"the poisoned data hold {len(victim)} images, not {length}")
    images, labels = victim.images()[: len(clean)], victim.labels[: len(clean)]
    require(torch.equal(images[others], clean.images()[others]), "an image outside the poison changed")
    require(torch.equal(labels[others], clean.labels[others]), "a label outside the poison changed")


def poisoned_rows_show_the_target_class_exactly_if_labels_stay_true(attack: DataPoisoning) -> None:
    """A clean-label attack takes images of that class alone and keeps class counts; any other takes none of it."""
    clean, poison = toy.dataset(), _poison(attack)
    wanted = _probe(attack).wanted.unique()
    if len(wanted) != 1 or int(wanted) < 0:
        return  # the attack has no one target class
    true, target = clean.labels[poison.rows], int(wanted)
    if torch.equal(true, poison.labels):
        require(bool((true == target).all()), "a clean-label attack took images of other classes")
        before, after = (data.labels.bincount() for data in (clean, poison.apply(clean).take(torch.arange(len(clean)))))
        require(torch.equal(before, after), "class counts changed")
    else:
        require(
            not bool((true == target).any()), "a poison-label attack took images that show the target class already"
        )


def too_large_a_budget_is_refused_by_name(attack: DataPoisoning) -> None:
    """More poisons than eligible images."""
    if "poisons" in type(attack).model_fields:
        _require_refusal(attack.replace(poisons=FAR_TOO_MANY), "poisons")


def a_target_that_is_no_class_is_refused_by_name(attack: DataPoisoning) -> None:
    """Classes are counted from 0."""
    if "target" in type(attack).model_fields:
        _require_refusal(attack.replace(target=len(toy.CLASSES)), "target")


def the_probe_wants_what_its_images_do_not_show(attack: Backdoor) -> None:
    """Images of the wanted class say nothing about an attack."""
    probe = _probe(attack)
    require(not bool((toy.unseen().labels[probe.rows] == probe.wanted).any()), "a probe's true label is the wanted one")


def the_probe_names_the_test_images_it_was_made_from(attack: Backdoor) -> None:
    """Distinct rows, stored images of the data's shape, and one wanted class (or -1, any error) each."""
    probe, count = _probe(attack), len(toy.CLASSES)
    require(len(probe.rows) > 0, "the probe is empty")
    require(len(torch.unique(probe.rows)) == len(probe.rows), "a test image is probed twice")
    require(bool((probe.rows >= 0).all() and (probe.rows < len(toy.unseen())).all()), "a row is not of the test data")
    require(probe.images.dtype == torch.uint8, f"images are {probe.images.dtype}")
    require(probe.images.shape == (len(probe.rows), *toy.SHAPE), f"images have the shape {tuple(probe.images.shape)}")
    require(bool((probe.wanted >= -1).all() and (probe.wanted < count).all()), "a wanted class does not exist")


def the_same_seed_gives_the_same_probe(attack: Backdoor) -> None:
    """Whatever the global generators are at."""
    first = _seen(_probe(attack))
    with other_generators():
        require_unchanged(first, _seen(_probe(attack)), "the probe's ")


def probing_leaves_test_data_and_global_state_alone(attack: Backdoor) -> None:
    """The referee measures clean accuracy on the same images."""
    test = toy.unseen()
    before, memory = pixels(test), _memory(attack)
    with nothing_global_changes():
        attack.probe(test, memory, toy.armed(attack), toy.SEED)
    require_unchanged(before, pixels(test), "test ")


def the_same_seed_supplies_the_same_model(attack: CodePoisoning) -> None:
    """Weights and memory, whatever the global generators are at."""
    first = _shipped(_supply(attack))
    with other_generators():
        require_unchanged(first, _shipped(_supply(attack)), "the supplied model's ")


def another_seed_supplies_another_model(attack: CodePoisoning) -> None:
    """Initialisation and order are drawn."""
    other = attack.supply(toy.dataset(), toy.armed(attack), toy.SEED / "other")
    require(_shipped(_supply(attack)) != _shipped(other), "two seeds supplied the same model")


def the_model_is_one_of_the_victim_s_recipe(attack: CodePoisoning) -> None:
    """Finite weights, under the keys and in the shapes of the public architecture, in evaluation mode."""
    model = _supply(attack).model
    expected = toy.architecture().build(toy.SHAPE, toy.CLASSES, toy.SEED).weights()
    found = model.weights()
    require(
        {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in expected.items()},
        "the weights are not those of the architecture",
    )
    require(all(bool(value.isfinite().all()) for value in found.values()), "a weight is not finite")
    require(not any(layer.training for layer in model.modules()), "the model is in training mode")


def supplying_leaves_data_and_global_state_alone(attack: CodePoisoning) -> None:
    """The victim's images and labels, generators, gradient mode and the rest."""
    clean = toy.dataset()
    before = pixels(clean)
    lab = toy.armed(attack)
    with nothing_global_changes():
        attack.supply(clean, lab, toy.SEED)
    require_unchanged(before, pixels(clean), "clean ")


def _shipped(shipment: Shipment) -> dict[str, object]:
    tensors = {**shipment.model.weights(), **{f"memory {name}": value for name, value in shipment.memory.items()}}
    return {name: bits(value) for name, value in tensors.items()}


def _poison(attack: DataPoisoning) -> Poison:
    return attack.poison(toy.dataset(), toy.armed(attack), toy.SEED)


def _memory(attack: Backdoor) -> dict[str, Tensor]:
    if isinstance(attack, CodePoisoning):
        return dict(_supply(attack).memory)
    return dict(_poison(attack).memory) if isinstance(attack, DataPoisoning) else {}


def _supply(attack: CodePoisoning) -> Shipment:
    return attack.supply(toy.dataset(), toy.armed(attack), toy.SEED)


def _probe(attack: Backdoor) -> Probe:
    return attack.probe(toy.unseen(), _memory(attack), toy.armed(attack), toy.SEED)


def _rows(poison: Poison) -> set[int]:
    return {int(row) for row in poison.rows}


def _contents(poison: Poison) -> dict[str, object]:
    memory = {f"memory {name}": bits(tensor) for name, tensor in poison.memory.items()}
    tensors = {"rows": bits(poison.rows), "images": bits(poison.images), "labels": bits(poison.labels)}
    return {**tensors, **memory, "boost": poison.boost, "whether it is added": poison.added}


def _seen(probe: Probe) -> dict[str, object]:
    return {"rows": bits(probe.rows), "images": bits(probe.images), "wanted classes": bits(probe.wanted)}


def _require_refusal(attack: DataPoisoning, setting: str) -> None:
    try:
        _poison(attack)
    except SettingError as error:
        require(setting in str(error), f"the message does not name the setting {setting!r}: {error}")
        return
    require(False, f"{setting}={getattr(attack, setting)} was accepted")


PROBE_CLAIMS: tuple[Claim, ...] = (
    the_probe_wants_what_its_images_do_not_show,
    the_probe_names_the_test_images_it_was_made_from,
    the_same_seed_gives_the_same_probe,
    probing_leaves_test_data_and_global_state_alone,
)

POISON_CLAIMS: tuple[Claim, ...] = (
    the_same_seed_gives_the_same_poison,
    another_seed_chooses_other_rows,
    data_read_on_demand_give_the_same_poison,
    the_clean_data_are_left_alone,
    poisoning_leaves_global_state_alone,
    the_budget_is_exact_and_no_row_is_poisoned_twice,
    poisoned_images_are_stored_like_clean_ones,
    rows_outside_the_poison_stay_as_they_were,
    poisoned_rows_show_the_target_class_exactly_if_labels_stay_true,
    too_large_a_budget_is_refused_by_name,
    a_target_that_is_no_class_is_refused_by_name,
)

SUPPLY_CLAIMS: tuple[Claim, ...] = (
    the_same_seed_supplies_the_same_model,
    another_seed_supplies_another_model,
    the_model_is_one_of_the_victim_s_recipe,
    supplying_leaves_data_and_global_state_alone,
)
