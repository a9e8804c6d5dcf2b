"""What every detector must hold to."""

from __future__ import annotations

import torch
from torch import Tensor

from bezoar.errors import BezoarError
from bezoar.records import Inspection
from bezoar.roles import Detector
from bezoar.testing import toy
from bezoar.testing.watch import (
    Claim,
    bits,
    nothing_global_changes,
    other_generators,
    pixels,
    remembered,
    require,
    require_unchanged,
    state,
)

CLASSES = len(toy.CLASSES)


def every_class_has_one_finite_score(detector: Detector) -> None:
    """A vector [k] of floats."""
    _require_scores(_found(detector))


def a_class_without_trusted_images_has_a_score_too(detector: Detector) -> None:
    """A defender's few images need not show every class."""
    trusted = toy.trusted()
    lacking = trusted.take((trusted.labels != 1).nonzero()[:, 0])
    _require_scores(detector.inspect(toy.suspect(), lacking, toy.lab(), toy.SEED))


def few_trusted_images_are_enough_or_refused_in_words(detector: Detector) -> None:
    """One class alone, or a single image."""
    trusted = toy.trusted()
    for few in (trusted.labels == 1, torch.arange(len(trusted)) == 0):
        try:
            _require_scores(detector.inspect(toy.suspect(), trusted.take(few.nonzero()[:, 0]), toy.lab(), toy.SEED))
        except BezoarError:
            continue


def the_suspect_and_the_trusted_images_are_left_alone(detector: Detector) -> None:
    """Weights, buffers, modes, flags, gradients and hooks of the suspect, and the images."""
    suspect, trusted = toy.suspect(), toy.trusted()
    before, images = state(suspect), pixels(trusted)
    detector.inspect(suspect, trusted, toy.lab(), toy.SEED)
    require_unchanged(before, state(suspect), "the suspect's ")
    require_unchanged(images, pixels(trusted), "the trusted ")


def the_same_seed_says_the_same(detector: Detector) -> None:
    """Whatever the global generators are at."""
    first = _contents(_found(detector))
    with other_generators():
        require_unchanged(first, _contents(_inspect(detector)))


def inspecting_leaves_global_state_alone(detector: Detector) -> None:
    """Generators, gradient mode and the rest."""
    with nothing_global_changes():
        _inspect(detector)


def triggers_have_the_shape_of_images(detector: Detector) -> None:
    """One a class, finite; masks, if there are any, are one channel in [0, 1]."""
    found = _found(detector)
    if found.triggers is None:
        require(found.masks is None, "there are masks but no triggers")
        return
    require(found.triggers.shape == (CLASSES, *toy.SHAPE), f"triggers have the shape {tuple(found.triggers.shape)}")
    require(bool(found.triggers.isfinite().all()), "a trigger is not finite")
    if found.masks is not None:
        require(found.masks.shape == (CLASSES, 1, *toy.SHAPE[1:]), f"masks have the shape {tuple(found.masks.shape)}")
        require(bool((found.masks >= 0).all() and (found.masks <= 1).all()), "a mask leaves [0, 1]")
    stamped = found.stamp(toy.photographs(), found.suspect)
    require(bool((stamped >= 0).all() and (stamped <= 1).all()), "a stamped image leaves [0, 1]")


def evidence_is_one_finite_number_for_each_class(detector: Detector) -> None:
    """Under every name."""
    for name, values in _found(detector).evidence.items():
        require(values.shape == (CLASSES,), f"{name} has the shape {tuple(values.shape)}")
        require(bool(values.isfinite().all()), f"{name} is not finite: {values.tolist()}")


def what_it_says_can_be_kept(detector: Detector) -> None:
    """On the CPU and apart from any graph, so that the store can write it."""
    for name, tensor in _tensors(_found(detector)).items():
        require(tensor.device == torch.device("cpu"), f"{name} is on {tensor.device}")
        require(not tensor.requires_grad, f"{name} wants a gradient")


def _inspect(detector: Detector) -> Inspection:
    return detector.inspect(toy.suspect(), toy.trusted(), toy.lab(), toy.SEED)


_found = remembered(_inspect)


def _require_scores(found: Inspection) -> None:
    require(found.scores.shape == (CLASSES,), f"{CLASSES} classes have scores of the shape {tuple(found.scores.shape)}")
    require(bool(found.scores.isfinite().all()), f"the scores are {found.scores.tolist()}")


def _tensors(found: Inspection) -> dict[str, Tensor]:
    tensors = {"scores": found.scores, **{f"evidence {name}": values for name, values in found.evidence.items()}}
    optional = {"triggers": found.triggers, "masks": found.masks}
    return tensors | {name: tensor for name, tensor in optional.items() if tensor is not None}


def _contents(found: Inspection) -> dict[str, object]:
    return {**{name: bits(tensor) for name, tensor in _tensors(found).items()}, "abstained": found.abstained}


CLAIMS: tuple[Claim, ...] = (
    every_class_has_one_finite_score,
    a_class_without_trusted_images_has_a_score_too,
    few_trusted_images_are_enough_or_refused_in_words,
    the_suspect_and_the_trusted_images_are_left_alone,
    the_same_seed_says_the_same,
    inspecting_leaves_global_state_alone,
    triggers_have_the_shape_of_images,
    evidence_is_one_finite_number_for_each_class,
    what_it_says_can_be_kept,
)
