"""What every sanitizer must hold to."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bezoar.models.classifier import Classifier
from bezoar.records import Dataset
from bezoar.roles import Sanitizer
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

TOLERANCE = 1e-3
"""Of the largest score: rounding in another order is amplified where clusters are nearly alike."""

ROWS, POISONS = 240, 15
"""Of the data in which poison is to be found: a class of 75 rows, a fifth of which show another one."""


def every_row_has_one_finite_score(sanitizer: Sanitizer) -> None:
    """A vector [n] of floats on the CPU, apart from any graph, so that the store can write it."""
    scores = _scores(sanitizer)
    require(scores.shape == (len(toy.dataset()),), f"{len(toy.dataset())} rows have scores {tuple(scores.shape)}")
    require(scores.is_floating_point() and bool(scores.isfinite().all()), f"the scores are {scores.tolist()}")
    require(scores.device == torch.device("cpu") and not scores.requires_grad, "the scores cannot be kept as they are")


def the_victim_and_the_data_are_left_alone(sanitizer: Sanitizer) -> None:
    """Weights, buffers, modes, flags, gradients and hooks of the model, images and labels of the data."""
    victim, data = toy.suspect(), toy.dataset()
    before, images = state(victim), pixels(data)
    sanitizer.suspicion(victim, data, toy.lab(), toy.SEED)
    require_unchanged(before, state(victim), "the victim's ")
    require_unchanged(images, pixels(data), "the data's ")


def the_same_seed_says_the_same(sanitizer: Sanitizer) -> None:
    """Whatever the global generators are at."""
    first = _scores(sanitizer)
    with other_generators():
        require(bits(first) == bits(_look(sanitizer)), "two looks with one seed give two answers")


def ranking_leaves_global_state_alone(sanitizer: Sanitizer) -> None:
    """Generators, gradient mode and the rest."""
    with nothing_global_changes():
        _look(sanitizer)


def the_order_of_the_rows_does_not_matter(sanitizer: Sanitizer) -> None:
    """Rows in another order have the same scores, in that order."""
    order = (toy.SEED / "order").permutation(len(toy.dataset()))
    first = _scores(sanitizer)
    again = sanitizer.suspicion(toy.suspect(), toy.dataset().take(order), toy.lab(), toy.SEED)
    moved = float((again - first[order]).abs().max())
    require(moved <= TOLERANCE * float(first.abs().max()), f"a score moves by {moved:.3g} when the rows are shuffled")


def data_that_cannot_be_told_apart_are_ranked_too(sanitizer: Sanitizer) -> None:
    """A class of one row, a class without any, and a class all of whose rows are one image."""
    data = toy.dataset()
    few = (data.labels == 0) | (data.labels == 2)
    few[1] = True
    images = data.images()
    images[data.labels == 2] = images[2].clone()
    odd = replace(data, reader=images.__getitem__).take(few.nonzero()[:, 0])
    scores = sanitizer.suspicion(toy.suspect(), odd, toy.lab(), toy.SEED)
    require(scores.shape == (len(odd),), f"{len(odd)} rows have scores {tuple(scores.shape)}")
    require(bool(scores.isfinite().all()), f"the scores are {scores.tolist()}")


def obvious_poison_ranks_high(sanitizer: Sanitizer) -> None:
    """Images of another class among one class's rows, in a model that tells the two apart: three in four pairs."""
    clean = toy.dataset(ROWS)
    poisoned = (clean.labels == 1).nonzero()[:POISONS, 0]
    labels = clean.labels.clone()
    labels[poisoned] = 0
    scores = sanitizer.suspicion(_knowing(), replace(clean, labels=labels), toy.lab(), toy.SEED)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[poisoned] = False
    above = scores[poisoned][:, None] - scores[rest][None]
    wins = float((above > 0).float().mean() + (above == 0).float().mean() / 2)
    require(wins >= 0.75, f"poisoned rows are above clean ones in only {wins:.0%} of pairs")


def _knowing() -> Classifier:
    """The toy's model, trained on the true labels, so that its features show what an image is."""
    return toy.suspect().eval()


def _look(sanitizer: Sanitizer) -> Tensor:
    data: Dataset = toy.dataset()
    return sanitizer.suspicion(toy.suspect(), data, toy.lab(), toy.SEED)


_scores = remembered(_look)

CLAIMS: tuple[Claim, ...] = (
    every_row_has_one_finite_score,
    the_victim_and_the_data_are_left_alone,
    the_same_seed_says_the_same,
    ranking_leaves_global_state_alone,
    the_order_of_the_rows_does_not_matter,
    data_that_cannot_be_told_apart_are_ranked_too,
    obvious_poison_ranks_high,
)
