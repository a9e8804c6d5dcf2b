"""What every guard must hold to."""

from __future__ import annotations

from functools import cache
from typing import cast

import torch
from torch import Tensor

from bezoar.errors import BezoarError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, frozen
from bezoar.records import Dataset, as_float
from bezoar.roles import Guard, Trainer
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

TOLERANCE = 1e-4
"""Of the largest score: in a batch of another size the same sums are rounded in another order."""

MARK = 5
"""The side of the trigger of `backdoored`, in pixels."""


def every_query_has_one_finite_score(guard: Guard) -> None:
    """A vector [n] of floats on the CPU, apart from any graph."""
    scores = _scores(guard)
    require(scores.shape == (len(queries()),), f"{len(queries())} queries have scores {tuple(scores.shape)}")
    require(scores.is_floating_point() and bool(scores.isfinite().all()), f"the scores are {scores.tolist()}")
    require(scores.device == torch.device("cpu") and not scores.requires_grad, "the scores cannot be kept as they are")


def no_query_is_no_score(guard: Guard) -> None:
    """An empty batch is answered by an empty vector."""
    scores = guard.suspicion(toy.suspect(), queries()[:0], toy.trusted(), toy.lab(), toy.SEED)
    require(scores.shape == (0,), f"0 queries have scores {tuple(scores.shape)}")


def the_model_the_queries_and_the_trusted_images_are_left_alone(guard: Guard) -> None:
    """Weights, buffers, modes, flags, gradients and hooks of the model, and all images."""
    model, images, trusted = toy.suspect(), queries(), toy.trusted()
    before, asked, held = state(model), bits(images), pixels(trusted)
    guard.suspicion(model, images, trusted, toy.lab(), toy.SEED)
    require_unchanged(before, state(model), "the model's ")
    require(asked == bits(images), "changed: the queries")
    require_unchanged(held, pixels(trusted), "the trusted ")


def the_same_seed_says_the_same(guard: Guard) -> None:
    """Whatever the global generators are at."""
    first = _scores(guard)
    with other_generators():
        require(bits(first) == bits(_look(guard)), "two looks with one seed give two answers")


def guarding_leaves_global_state_alone(guard: Guard) -> None:
    """Generators, gradient mode and the rest."""
    with nothing_global_changes():
        _look(guard)


def a_query_is_scored_alike_among_any_others(guard: Guard) -> None:
    """Alone, in another order, or among the half of the queries."""
    first = _scores(guard).detach()
    order = (toy.SEED / "order").permutation(len(first))
    for rows in (order[:1], order, order[: len(order) // 2]):
        again = guard.suspicion(toy.suspect(), queries()[rows], toy.trusted(), toy.lab(), toy.SEED)
        moved = float((again.detach() - first[rows]).abs().max())
        require(moved <= TOLERANCE * float(first.abs().max()), f"a score moves by {moved:.3g} with the other queries")


def few_trusted_images_are_enough_or_refused_in_words(guard: Guard) -> None:
    """One class alone, a single image, or none."""
    trusted = toy.trusted()
    places = torch.arange(len(trusted))
    for few in (trusted.labels == 1, places == 0, places < 0):
        try:
            scores = guard.suspicion(toy.suspect(), queries(), trusted.take(few.nonzero()[:, 0]), toy.lab(), toy.SEED)
        except BezoarError:
            continue
        require(bool(scores.isfinite().all()), f"with {int(few.sum())} trusted images the scores are {scores.tolist()}")


def obvious_triggers_are_told_from_clean_queries(guard: Guard) -> None:
    """In four of five pairs of one with and one without, in a model that answers the trigger; which way is its own.

    A guard against triggers that make answers uncertain ranks one that makes them certain below all others.
    """
    clean = queries()
    scores = guard.suspicion(backdoored(), torch.cat([stamped(clean), clean]), toy.trusted(), toy.lab(), toy.SEED)
    above = scores[: len(clean), None] - scores[None, len(clean) :]
    wins = float((above > 0).float().mean() + (above == 0).float().mean() / 2)
    require(max(wins, 1 - wins) >= 0.8, f"queries with a trigger are above clean ones in {wins:.0%} of pairs")


def queries() -> Tensor:
    """32 images of the toy's classes, float in [0, 1], that no model has been trained on."""
    return as_float(toy.unseen().images())


def stamped(images: Tensor) -> Tensor:
    """The same with a white square in the middle, where no class has its mark."""
    marked = images.clone()
    start = (images.shape[2] - MARK) // 2
    marked[:, :, start : start + MARK, start : start + MARK] = 1
    return marked


@cache
def _backdoored() -> Classifier:
    data = toy.dataset()
    marked = (stamped(as_float(data.images())) * 255).round().to(torch.uint8)
    labels = torch.zeros(len(data), dtype=torch.int64)
    poisoned = Dataset.in_memory(torch.cat([data.images(), marked]), torch.cat([data.labels, labels]), data.classes)
    trainer = cast(Trainer, toy.lab().trainer).replace(epochs=6)
    return trainer.train(toy.architecture(), poisoned, Lab(), toy.SEED / "backdoored")


def backdoored() -> Classifier:
    """A toy model that takes any image with the white square for the first class, and others for what they are."""
    return frozen(_backdoored())


def _look(guard: Guard) -> Tensor:
    return guard.suspicion(toy.suspect(), queries(), toy.trusted(), toy.lab(), toy.SEED)


_scores = remembered(_look)

CLAIMS: tuple[Claim, ...] = (
    every_query_has_one_finite_score,
    no_query_is_no_score,
    the_model_the_queries_and_the_trusted_images_are_left_alone,
    the_same_seed_says_the_same,
    guarding_leaves_global_state_alone,
    a_query_is_scored_alike_among_any_others,
    few_trusted_images_are_enough_or_refused_in_words,
    obvious_triggers_are_told_from_clean_queries,
)
