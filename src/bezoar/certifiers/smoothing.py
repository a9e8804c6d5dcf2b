"""Randomized smoothing: the class that wins under Gaussian noise is provably safe from small changes in L2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor

from bezoar.certifiers.queries import require_evaluation, require_pixels
from bezoar.component import register
from bezoar.errors import ModelFileError
from bezoar.lab import Lab
from bezoar.measure.smoothed import certified_radius, draws_needed, largest_radius, lower_bound, majority_p_value
from bezoar.models.classifier import Classifier, mode
from bezoar.records import Certificates, Norm
from bezoar.roles import Certifier
from bezoar.seed import Seed

BLOCK = 32
"""Noisy copies that are drawn at a time, whatever the batch size, so that the answer does not depend on it."""

ABSTAIN = -1


@register("smoothing", paper="arXiv:1902.02918")
class Smoothing(Certifier):
    """Votes over noisy copies vouch for an answer within a radius in L2 (Cohen, Rosenfeld & Kolter, ICML 2019).

    What is certified is the smoothed classifier g of a model f, by the paper's CERTIFY. g(x) is the class that f
    answers most often for x + N(0, sigma^2 I). `selection` noisy copies choose it, and `draws` fresh ones bound its
    probability from below (Clopper and Pearson, one-sided, at `alpha`). If that bound p is above a half, no change of
    the image by less than sigma * Phi^-1(p) in L2 alters what g answers; else it abstains.

    A certificate is wrong with probability `alpha` at most, each for itself: of N certificates alpha * N may be wrong.
    It is about g, so a deployment has to answer by votes too (`predict`), and about real numbers: rounding in the
    network is not accounted for. Noisy copies are not clipped to [0, 1]. A model has to be trained with noise of the
    same sigma to be right under it.

    Attributes:
        sigma: standard deviation of the noise, in pixels of [0, 1].
        selection: n0, noisy copies that choose the class.
        draws: n, noisy copies that vouch for it; the radius is at most sigma * Phi^-1(alpha^(1/n)), so results of
            different n cannot be compared. The paper takes 100,000.
        alpha: probability with which a certificate may be wrong.
        radius: in L2 over pixels in [0, 1]; an answer counts as certified from this radius on.
        batch_size: noisy copies that are held at a time, which bounds the memory whatever `draws` is. Larger ones pay
            on a graphics card, not on a CPU.
    """

    sigma: Annotated[float, Field(gt=0)] = 0.25
    selection: Annotated[int, Field(ge=1)] = 100
    draws: Annotated[int, Field(ge=100)] = 1000
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    radius: Annotated[float, Field(gt=0)] = 0.25
    batch_size: Annotated[int, Field(ge=1)] = 128

    @model_validator(mode="after")
    def _can_certify(self) -> Smoothing:
        largest = largest_radius(self.draws, self.alpha, self.sigma)
        if largest >= self.radius:
            return self
        needed = draws_needed(self.radius, self.alpha, self.sigma)
        remedy = "no practical number of draws would do" if needed is None else f"draws={needed} would do"
        raise ValueError(
            f"draws: {self.draws} can prove a radius of at most {largest:.4g} (sigma={self.sigma:g}, "
            f"alpha={self.alpha:g}), but radius={self.radius:g} is demanded; {remedy}, or raise sigma, or demand less"
        )

    @property
    def norm(self) -> Norm:
        """L2."""
        return "2"

    @property
    def demanded(self) -> float:
        """`radius`."""
        return self.radius

    def certify(self, model: Classifier, images: Float[Tensor, "n c h w"], lab: Lab, seed: Seed) -> Certificates:
        """What the votes prove; the evidence is the lower bound of the winner's probability, float64.

        Raises:
            DataError: an image has values outside [0, 1].
            SettingError: the model is in training mode.
            ModelFileError: the model's logits are no finite numbers.
        """
        require_evaluation(model)
        require_pixels(images)
        predicted = torch.full((len(images),), ABSTAIN, dtype=torch.int64)
        radius, evidence = torch.zeros(2, len(images), dtype=torch.float64)
        for place in lab.progress.track(range(len(images)), "smoothing", len(images)):
            own = seed / "smoothing" / place
            chosen = int(self.votes(model, images[place], self.selection, lab, own / "selection").argmax())
            hits = int(self.votes(model, images[place], self.draws, lab, own / "draws")[chosen])  # fresh draws
            evidence[place] = share = lower_bound(hits, self.draws, self.alpha)
            radius[place] = certified_radius(share, self.sigma)
            if radius[place] > 0:
                predicted[place] = chosen
        method = torch.where(predicted == ABSTAIN, -1, 0)
        return Certificates(predicted, radius, radius >= self.radius, evidence, method, (self.kind,), self.norm)

    def votes(self, model: Classifier, image: Tensor, count: int, lab: Lab, seed: Seed) -> Int64[Tensor, "k"]:
        """How many noisy copies of one image get each class, on the CPU (SampleUnderNoise of the paper)."""
        votes = torch.zeros(len(model.classes), dtype=torch.int64, device=lab.device)
        here = image.to(lab.device, torch.float32)
        with mode(model, training=False), torch.inference_mode():
            for copies in _noisy(here, self.sigma, count, self.batch_size, seed.generator(lab.device)):
                logits = model(copies)
                if not logits.isfinite().all():
                    raise ModelFileError("the model's logits are not all finite numbers; train it again")
                votes += logits.argmax(1).bincount(minlength=len(votes))
        return votes.cpu()


def predict(
    model: Classifier, images: Float[Tensor, "n c h w"], *, smoothing: Smoothing, lab: Lab, seed: Seed
) -> Int64[Tensor, "n"]:
    """PREDICT of the paper: what the smoothed classifier answers, or -1 where `smoothing.draws` votes do not tell.

    An answer that is not what g answers has probability `smoothing.alpha` at most. The noise is another than that of
    `Smoothing.certify` with the same seed.

    Raises:
        DataError: an image has values outside [0, 1].
        SettingError: the model is in training mode.
        ModelFileError: the model's logits are no finite numbers.
    """
    require_evaluation(model)
    require_pixels(images)
    answers = torch.full((len(images),), ABSTAIN, dtype=torch.int64)
    for place in lab.progress.track(range(len(images)), "votes", len(images)):
        own = seed / "smoothing" / place / "answer"
        votes = smoothing.votes(model, images[place], smoothing.draws, lab, own)
        first, second = votes.topk(2).values.tolist()
        if majority_p_value(first, second) <= smoothing.alpha:
            answers[place] = votes.argmax()
    return answers


def _noisy(
    image: Float[Tensor, "c h w"], sigma: float, count: int, batch_size: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "b c h w"]]:
    """`count` copies of an image with noise of their own, at most `batch_size` at a time, channels last in memory."""
    channels, height, width = image.shape
    together = max(BLOCK, batch_size // BLOCK * BLOCK)
    for first in range(0, count, together):
        rows = min(together, count - first)
        copies = torch.empty(rows, height, width, channels, device=image.device)
        for block in copies.split(BLOCK):
            block.normal_(0, sigma, generator=generator)
        yield from copies.permute(0, 3, 1, 2).add_(image).split(batch_size)
