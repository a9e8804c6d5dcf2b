"""Training for certificates: the loss holds bounds of the margins over a ball that grows while the model learns."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from bezoar.bounds.margins import margins
from bezoar.bounds.network import Network, read
from bezoar.component import register
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset
from bezoar.roles import Architecture, Trainer
from bezoar.seed import Seed
from bezoar.training.augment import Augmentation
from bezoar.training.batches import Batch, batches, per_epoch
from bezoar.training.steps import Step, steps

BEND, POWER = 0.25, 4
"""The ramp of the radius rises with the fourth power over its first quarter, and in a straight line from there."""

Share = Annotated[float, Field(ge=0, le=1)]
"""Of all steps of a training."""


class Certified(Trainer):
    """What both recipes share: Adam on a mixture of cross-entropy and of cross-entropy of the worst logits in a ball.

    The loss is ``kappa CE(f(x), y) + (1 - kappa) CE(-m, y)``, where m [k] are lower bounds of the margins of the true
    class, 0 for itself (Gowal et al., arXiv:1810.12715, equation 12). During `warm_up` the ball is a point and kappa
    is 1; during `ramp` the radius rises to `epsilon`, smoothly, and kappa falls to its last value in a straight line;
    then both stay. All phases are shares of the run, so that a short one has them too. Train at up to twice the
    radius that is to be certified.

    Batch normalisation, where a network has any, stands by its running statistics in the bounds and by the batch's in
    the plain loss.
    """

    epsilon: Annotated[float, Field(gt=0)] = 0.1
    epochs: Annotated[int, Field(ge=1)] = 70
    batch_size: Annotated[int, Field(ge=2)] = 256
    lr: Annotated[float, Field(gt=0)] = 5e-4
    warm_up: Share = 0.015
    ramp: Share = 0.285
    milestones: tuple[Share, ...] = (0.715, 0.855)
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    clip: Annotated[float, Field(gt=0)] = 10
    initialisation: Literal["architecture", "intervals"] = "architecture"
    augmentation: Augmentation = "none"

    @model_validator(mode="after")
    def _phases_fit(self) -> Certified:
        if self.warm_up + self.ramp > 1:
            raise ValueError(
                f"warm_up and ramp are {self.warm_up} and {self.ramp} of the run, more than all of it; lower one"
            )
        return self

    def train(self, architecture: Architecture, data: Dataset, lab: Lab, seed: Seed) -> Classifier:
        """Train from a fresh initialisation; one seed stream each for weights, order and augmentation.

        Raises:
            SettingError: the network has layers that bounds do not go through.
        """
        model = architecture.build(data.shape, data.classes, seed / "initialisation").to(lab.device)
        self.require(read(model, data.shape))
        if self.initialisation == "intervals":
            with (seed / "intervals").scoped():
                initialise(model)
        total = self.epochs * per_epoch(len(data), self.batch_size)
        deque(lab.progress.track(self.run(model, data, lab, seed), "training", total), maxlen=0)
        return model.eval()

    def run(self, model: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Iterator[Step]:
        """The recipe's steps on a model, one at a time, with an optimiser of their own."""
        total = self.epochs * per_epoch(len(data), self.batch_size)
        optimizer = torch.optim.Adam(model.parameters(), self.lr)
        places = count()

        def objective(model: Classifier, batch: Batch) -> Tensor:
            return self.loss(model, batch, next(places) / total)

        return steps(
            model,
            batches(data, self.batch_size, seed, device=lab.device, epochs=self.epochs, augmentation=self.augmentation),
            objective,
            optimizer,
            seed=seed / "layers",
            schedule=torch.optim.lr_scheduler.MultiStepLR(
                optimizer, [round(place * total) for place in self.milestones], self.decay
            ),
            clip=self.clip,
        )

    def loss(self, model: Classifier, batch: Batch, place: float) -> Tensor:
        """The mixture on a batch, `place` of the way through the run, in [0, 1)."""
        ramped = self.ramped(place)
        plain = functional.cross_entropy(model(batch.images), batch.labels)
        kappa = 1 - (1 - self.last_kappa) * ramped
        radius = self.epsilon * smooth(ramped)
        if kappa == 1 or radius == 0:
            return plain
        worst = functional.cross_entropy(-self.bounds(model, batch, radius), batch.labels)
        return kappa * plain + (1 - kappa) * worst

    def require(self, network: Network) -> None:
        """Refuse a network whose layers the bounds do not go through, before the first step.

        Raises:
            SettingError: there is such a layer; the message names it.
        """

    def ramped(self, place: float) -> float:
        """How much of the ramp lies behind a place in the run, both in [0, 1]."""
        behind = place - self.warm_up
        if behind < 0 or not self.ramp:
            return float(behind >= 0)
        return min(1.0, behind / self.ramp)

    @property
    @abstractmethod
    def last_kappa(self) -> float:
        """The weight of the plain loss after the ramp."""

    @abstractmethod
    def bounds(self, model: Classifier, batch: Batch, radius: float) -> Tensor:
        """Lower bounds of the margins of the true classes, float [n, k], differentiable in the weights."""


@register("ibp", paper="arXiv:1810.12715")
class IntervalTraining(Certified):
    """Interval bound propagation (Gowal et al.): half of the loss is that of the worst logits in the end.

    The schedule is the short one of Shi et al. (arXiv:2103.17113) for MNIST: 70 epochs, a warm-up of 1, a ramp of 20,
    a fifth of the rate at 50 and at 60 of them. Of their method it has the initialisation, on request, which keeps
    intervals from widening layer by layer (``initialisation: intervals``), not the regularisers.
    """

    kappa: Share = 0.5

    @property
    def last_kappa(self) -> float:
        """As set."""
        return self.kappa

    def bounds(self, model: Classifier, batch: Batch, radius: float) -> Tensor:
        """By intervals."""
        return margins(model, batch.images, batch.labels, radius, method="ibp")


@register("crown_ibp", paper="arXiv:1906.06316")
class CrownTraining(Certified):
    """CROWN-IBP (Zhang et al.): linear bounds between intervals while the ball grows, and intervals once it has.

    The margins are ``beta`` times those of CROWN-IBP plus ``1 - beta`` times those of intervals, and beta falls from
    1 to `beta` with the radius. In the end all of the loss is that of the worst logits. A step takes longer than
    one of `ibp` as long as beta is not 0.
    """

    kappa: Share = 0
    beta: Share = 0

    @property
    def last_kappa(self) -> float:
        """As set."""
        return self.kappa

    def require(self, network: Network) -> None:
        """Linear bounds do not go through a maximum."""
        network.require_linear()

    def bounds(self, model: Classifier, batch: Batch, radius: float) -> Tensor:
        """By both, weighted."""
        beta = 1 - (1 - self.beta) * radius / self.epsilon
        loose = margins(model, batch.images, batch.labels, radius, method="ibp")
        if beta <= 0:
            return loose
        return beta * margins(model, batch.images, batch.labels, radius, method="crown_ibp") + (1 - beta) * loose


def smooth(ramped: float) -> float:
    """The radius as a share of the last one, after so much of the ramp: 0 at 0, 1 at 1, without a jump or a kink.

    The schedule of CROWN-IBP's and auto_LiRPA's authors ("smoothed").
    """
    steepness = 1 / (BEND**POWER + POWER * BEND ** (POWER - 1) * (1 - BEND))
    if ramped <= BEND:
        return steepness * ramped**POWER
    return steepness * (BEND**POWER + POWER * BEND ** (POWER - 1) * (ramped - BEND))


def initialise(model: nn.Module) -> None:
    """Weights of layers with d inputs from N(0, 2 pi / d^2), which keeps interval widths level (arXiv:2103.17113)."""
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=math.sqrt(2 * math.pi) / layer.weight[0].numel())
