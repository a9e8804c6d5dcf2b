"""STRIP: a query whose answer other images laid over it cannot shake carries a trigger, or too shaky an answer does."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from bezoar.component import register
from bezoar.errors import DataError, ModelFileError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, mode
from bezoar.records import Trusted, as_float
from bezoar.roles import Guard
from bezoar.seed import Seed

BATCH = 256
"""About how many images go through the model at once."""

MAD_TO_SIGMA = 1.4826
"""The standard deviation of a normal distribution, in median absolute deviations."""

Form = Literal["confident", "uncertain", "both"]


@register("strip", paper="arXiv:1902.06531")
class Strip(Guard):
    """The mean entropy of the model's answers to a query with trusted images laid over it (Gao et al., ACSAC 2019).

    Over each query N trusted images are laid, one at a time: the pixels are added and cut off at 1, as in the authors'
    published code. The mean Shannon entropy of the N answers, in bits (equations 2 to 4), is low where a trigger
    decides the answer whatever lies over it, and that is what the paper looks for (``form: confident``). A trigger
    that is meant to make answers uncertain, as one against a certifier is, does the opposite, which ``form:
    uncertain`` looks for (ours), and ``form: both`` looks for either (ours): the distance from the median entropy of
    the trusted images, none of which is laid over itself, in standard deviations estimated as 1.4826 MAD.

    The same images are laid over all queries, so that a query's score does not depend on the others.
    """

    overlays: Annotated[int, Field(ge=1)] = 100
    """N: how many trusted images are laid over a query; all of them if there are fewer."""
    weight: Annotated[float, Field(gt=0, le=1)] = 1
    """By which the pixels of a trusted image are multiplied before they are added."""
    form: Form = "confident"

    def suspicion(
        self, model: Classifier, images: Float[Tensor, "n c h w"], trusted: Trusted, lab: Lab, seed: Seed
    ) -> Float[Tensor, "n"]:
        """Minus the entropy, the entropy (bits), or the distance from the trusted images' (standard deviations).

        Raises:
            DataError: there is no trusted image, or the queries have another shape.
            ModelFileError: the model's answers are no numbers.
        """
        _require_alike(images, trusted)
        chosen = (seed / "overlays").permutation(len(trusted))[: self.overlays]
        over = self.weight * as_float(trusted.images[chosen])
        found = _entropies(model, images, over, lab).mean(1)
        if self.form == "confident":
            return -found
        if self.form == "uncertain":
            return found
        usual = _entropies(model, as_float(trusted.images), over, lab)
        apart = chosen[None] != torch.arange(len(trusted))[:, None]
        if len(trusted) > 1:
            usual = (usual * apart).sum(1) / apart.sum(1).clamp_min(1)
            usual = usual[apart.any(1)]  # with one overlay, the image that it is has nothing over it
        return _distance(found, usual.flatten())


def _entropies(
    model: Classifier, images: Float[Tensor, "n c h w"], over: Float[Tensor, "m c h w"], lab: Lab
) -> Float[Tensor, "n m"]:
    """Of the answer to each image under each overlay, in bits, on the CPU; the model is left as it was."""
    device = model.mean.device
    over = over.to(device)
    parts: list[Tensor] = []
    at_once = max(1, BATCH // len(over))
    chunks = images.split(at_once) if len(images) else ()
    with mode(model, training=False), torch.no_grad():
        for chunk in lab.progress.track(chunks, "queries", len(chunks)):
            blended = (chunk.to(device)[:, None] + over[None]).clamp_(max=1)
            logits = torch.cat([model(part.contiguous()) for part in blended.flatten(0, 1).split(BATCH)])
            parts.append(entropy(logits.double()).view(len(chunk), len(over)).float().cpu())
    found = torch.cat(parts) if parts else torch.zeros(0, len(over))
    if not found.isfinite().all():
        raise ModelFileError("the model's answers are not all finite numbers: its training failed; train it again")
    return found


def entropy(logits: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    """Shannon entropy of the softmax of each row, in bits: between 0 and log2 k."""
    logs = logits.log_softmax(1)
    return torch.special.entr(logs.exp()).sum(1) / math.log(2)


def _distance(found: Float[Tensor, "n"], usual: Float[Tensor, "m"]) -> Float[Tensor, "n"]:
    """From the median of the usual values in their standard deviations, or in bits where those are all alike."""
    centre = usual.quantile(0.5)
    spread = MAD_TO_SIGMA * (usual - centre).abs().quantile(0.5)
    return (found - centre).abs() / (spread if spread > 0 else 1)


def _require_alike(images: Tensor, trusted: Trusted) -> None:
    if not len(trusted):
        raise DataError("trusted: STRIP lays trusted images over every query and has none; give it at least one")
    if images.shape[1:] != trusted.images.shape[1:]:
        query, theirs = ("x".join(map(str, each.shape[1:])) for each in (images, trusted.images))
        raise DataError(
            f"trusted: queries of {query} (channels x height x width) cannot lie under trusted images of {theirs}; "
            "bring them to one shape"
        )
