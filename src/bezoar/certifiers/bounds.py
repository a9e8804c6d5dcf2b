"""Certificates from bounds of the margin: sound up to rounding, and the same every time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor

from bezoar.bounds.margins import STEPS, Method, margins
from bezoar.bounds.network import read
from bezoar.certifiers.queries import require_evaluation, require_pixels
from bezoar.component import register
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Certificates, Norm
from bezoar.roles import Certifier
from bezoar.seed import Seed

TOLERANCE = 1e-6
"""By how much a bound must be above 0, as a share of the image's largest logit (or of 1, if that is more): what
rounding in 32 bits may add up to."""


def _different(methods: tuple[Method, ...]) -> tuple[Method, ...]:
    if len(set(methods)) < len(methods):
        raise ValueError(f"{', '.join(methods)} names a method twice")
    return methods


Methods = Annotated[tuple[Method, ...], Field(min_length=1), AfterValidator(_different)]


@register("bounds", paper="arXiv:1810.12715, arXiv:1811.00866, arXiv:1906.06316, arXiv:2011.13824")
class Bounds(Certifier):
    """Bounds of the margins over the whole ball: intervals, CROWN-IBP, CROWN, and on request alpha-CROWN.

    An image goes on to the next of `methods` only while it is not certified, so cheap ones belong first; a network
    with max-pooling can be certified with ``methods: [ibp]`` alone. The ball is that of radius `epsilon` around the
    image as far as it lies in [0, 1], in the norm `ball`.

    With ``bisect: 0`` a certified image has the radius `epsilon`, and any other the radius 0. Otherwise so many
    bisection steps look for a larger radius between `epsilon` and `largest` times `epsilon`, and for one below
    `epsilon` where the image is not certified; each radius that is given has been certified itself. The search costs
    about as much again for every step.

    Certificates hold up to the rounding of 32-bit numbers, for which the bound must exceed a millionth of the logits.
    """

    deterministic: ClassVar[bool] = True

    epsilon: Annotated[float, Field(gt=0)] = 0.1
    ball: Norm = "inf"
    methods: Methods = ("ibp", "crown_ibp", "crown")
    steps: Annotated[int, Field(ge=1)] = STEPS
    bisect: Annotated[int, Field(ge=0)] = 0
    largest: Annotated[float, Field(gt=1)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 64

    @property
    def norm(self) -> Norm:
        """That of the ball."""
        return self.ball

    @property
    def demanded(self) -> float:
        """The radius of the ball."""
        return self.epsilon

    def require(self, model: Classifier, shape: tuple[int, int, int]) -> None:
        """Refuse layers that bounds do not go through.

        Raises:
            SettingError: a layer is of another kind, or a maximum where `methods` holds more than intervals.
        """
        network = read(model, shape, detached=True)
        if set(self.methods) != {"ibp"}:
            network.require_linear()

    def certify(self, model: Classifier, images: Float[Tensor, "n c h w"], lab: Lab, seed: Seed) -> Certificates:
        """The class that the model predicts, always; the evidence is the best bound of its margin at `epsilon`.

        Raises:
            DataError: an image has values outside [0, 1].
            SettingError: the model is in training mode, or has layers that bounds do not go through.
        """
        del seed
        require_evaluation(model)
        require_pixels(images)
        parts = images.split(self.batch_size)
        return Certificates.joined(
            [self._batch(model, part) for part in lab.progress.track(parts, "bounds", len(parts))]
        )

    def _batch(self, model: Classifier, images: Tensor) -> Certificates:
        images = images.to(model.mean)
        with torch.no_grad():
            logits = model(images)
            predicted, least = logits.argmax(1), TOLERANCE * logits.abs().amax(1).clamp_min(1)
            case = _Case(model, images, predicted, least)
            radius = images.new_full((len(images),), self.epsilon)
            evidence, method = self._cascade(case, radius)
            certified = method >= 0
            low = torch.where(certified, radius, 0.0)
            high = torch.where(certified, self.largest * radius, radius)
            for _ in range(self.bisect):
                middle = (low + high) / 2
                found = self._cascade(case, middle)[1]
                held = found >= 0
                low, high = torch.where(held, middle, low), torch.where(held, high, middle)
                method = torch.where(held, found, method)
        evidence = torch.where(evidence.isposinf(), torch.finfo(evidence.dtype).max, evidence)
        each = (predicted, low, certified, evidence, method)
        return Certificates(*(tensor.cpu() for tensor in each), methods=self.methods, norm=self.ball)

    def _cascade(self, case: _Case, radius: Tensor) -> tuple[Tensor, Tensor]:
        """The best bound of each image's margin at a radius of its own, and which method certified it; -1 for none."""
        best = torch.full_like(radius, -torch.inf)
        method = torch.full_like(case.predicted, -1)
        for number, name in enumerate(self.methods):
            left = (method < 0).nonzero()[:, 0]
            if not len(left):
                break
            labels = case.predicted[left]
            rows = margins(
                case.model, case.images[left], labels, radius[left], method=name, norm=self.ball, steps=self.steps
            )
            found = rows.scatter(1, labels[:, None], torch.inf).amin(1)
            best[left] = torch.maximum(best[left], found)
            method[left[found > case.least[left]]] = number
        return best, method


@dataclass(frozen=True, eq=False)
class _Case:
    """Images on the model's device, the classes that are to be certified, and how large a margin must be."""

    model: Classifier
    images: Tensor
    predicted: Tensor
    least: Tensor
