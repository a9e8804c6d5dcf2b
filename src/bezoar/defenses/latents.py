"""What a model makes of every row of a data set: the features on which sanitizers rest."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bezoar.errors import ModelFileError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, mode
from bezoar.records import Dataset, as_float

BATCH = 256


def latents(model: Classifier, data: Dataset, lab: Lab) -> Float[Tensor, "n d"]:
    """The features of all rows (`Classifier.features`), float32 on the CPU, from one pass in small batches.

    The model is in evaluation mode meanwhile and as before afterwards.

    Raises:
        ModelFileError: a feature is no finite number, so nothing can be measured with them.
    """
    parts: list[Tensor] = []
    batches = torch.arange(len(data)).split(BATCH)
    with mode(model, training=False), torch.no_grad():
        for rows in lab.progress.track(batches, "features", len(batches)):
            pixels = as_float(data.batch(rows).to(model.mean.device)).contiguous(memory_format=torch.channels_last)
            parts.append(model.features(pixels).float().cpu())
    found = torch.cat(parts)
    if not found.isfinite().all():
        raise ModelFileError("the model's features are not all finite numbers: its training failed; train it again")
    return found


def by_class(labels: Int64[Tensor, "n"]) -> Iterator[Int64[Tensor, "m"]]:
    """The rows of each class that has any, in order."""
    for label in labels.unique():
        yield (labels == label).nonzero()[:, 0]
