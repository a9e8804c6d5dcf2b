"""What a model answers, and how often that is what somebody wanted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from bezoar.errors import DataError
from bezoar.measure.estimates import proportion
from bezoar.models.classifier import Classifier, mode
from bezoar.records import Dataset, Estimate, Probe, as_float

BATCH = 512


def predict(model: Classifier, images: UInt8[Tensor, "n c h w"] | Dataset) -> Int64[Tensor, "n"]:
    """The class of each image, on the CPU; the model is in evaluation mode meanwhile and as before afterwards."""
    answers: list[Tensor] = []
    with mode(model, training=False), torch.inference_mode():
        for rows in torch.arange(len(images)).split(BATCH):
            batch = images.batch(rows) if isinstance(images, Dataset) else images[rows]
            pixels = as_float(batch.to(model.mean.device)).contiguous(memory_format=torch.channels_last)
            answers.append(model(pixels).argmax(1))
    return torch.cat(answers).cpu() if answers else torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class Measurement:
    """The referee's reading of one model.

    Attributes:
        right: bool [n], which test images the model classifies correctly.
        fooled: bool [p], for which probes the model answers what the attacker wants; any wrong class where that is -1.
        clean_accuracy: share of `right`.
        attack_success: share of `fooled`; the probes leave out images that show the wanted class.
    """

    right: Bool[Tensor, "n"]
    fooled: Bool[Tensor, "p"]
    clean_accuracy: Estimate
    attack_success: Estimate


def clean_accuracy(model: Classifier, test: Dataset) -> Estimate:
    """The share of test images that a model classifies correctly."""
    return proportion(predict(model, test) == test.labels, test.groups)


def measure(model: Classifier, test: Dataset, probe: Probe) -> Measurement:
    """Clean accuracy and attack success of a model on the whole test set.

    Attack success leaves out images whose true label is the wanted one (spec A4); the true labels
    are the referee's own, not the attacker's.

    Raises:
        DataError: there is nothing to measure on, or the probe names rows that the test set does not have.
    """
    if len(probe.rows) and int(probe.rows.max()) >= len(test):
        raise DataError("the probe names rows beyond the end of the test set")
    right = predict(model, test) == test.labels
    counted = test.labels[probe.rows] != probe.wanted
    if not len(test) or not counted.any():
        raise DataError(
            f"nothing to measure on: of {len(test)} test images none shows another class than the one the attack wants"
        )
    answers = predict(model, probe.images)
    wrong = (probe.wanted == -1) & (answers != test.labels[probe.rows])
    fooled = ((answers == probe.wanted) | wrong)[counted]
    groups = test.groups
    return Measurement(
        right,
        fooled,
        proportion(right, groups),
        proportion(fooled, None if groups is None else groups[probe.rows][counted]),
    )
