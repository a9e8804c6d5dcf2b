"""Training by stochastic gradient descent: the paper's recipe and a fast one differ only in their settings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bezoar.component import register
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset
from bezoar.roles import Architecture, Trainer
from bezoar.seed import Seed
from bezoar.training.augment import Augmentation
from bezoar.training.batches import Batch, batches, noisy, per_epoch
from bezoar.training.steps import Objective, Precision, Step, cross_entropy, steps

RISE = 0.2
"""The share of a one-cycle schedule during which the learning rate rises."""


@register("sgd", paper="arXiv:2305.09671, Table IV")
class Sgd(Trainer):
    """SGD with momentum. The defaults are the paper's recipe for CIFAR-10 (Table IV): 120 epochs, cosine annealing.

    ``schedule: one_cycle`` with Nesterov momentum is the fast recipe: the learning rate rises to `lr`
    over the first fifth of the steps and falls to zero (Smith & Topin, arXiv:1708.07120). ``schedule: steps`` is He et
    al.'s: a tenth of the rate after half of the steps, and another after three quarters.

    With `noise`, Gaussian noise of that standard deviation, of pixels in [0, 1], is added to every image in every step
    and nothing is clipped: the augmentation of Cohen et al. (arXiv:1902.02918) for randomised smoothing.

    With `compile` the network is compiled at first, which takes a while and a C compiler and pays on a GPU
    (benchmarks/README.md has the ratio). It is the same up to rounding.
    """

    added = frozenset({"noise"})

    epochs: Annotated[int, Field(ge=1)] = 120
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["constant", "cosine", "one_cycle", "steps"] = "cosine"
    augmentation: Augmentation = "crop_flip"
    precision: Precision = "float32"
    compile: bool = False
    noise: Annotated[float, Field(ge=0)] = 0

    def train(self, architecture: Architecture, data: Dataset, lab: Lab, seed: Seed) -> Classifier:
        """Train from a fresh initialisation; one seed stream each for weights, order and augmentation."""
        model = architecture.build(data.shape, data.classes, seed / "initialisation").to(lab.device)
        model = model.to(memory_format=torch.channels_last)
        total = self.steps(len(data))
        deque(lab.progress.track(self.run(model, data, lab, seed), "training", total), maxlen=0)
        return model.eval()

    def steps(self, count: int) -> int:
        """How many steps the recipe takes on `count` images."""
        return self.epochs * per_epoch(count, self.batch_size)

    def run(
        self,
        model: Classifier,
        data: Dataset,
        lab: Lab,
        seed: Seed,
        *,
        training: bool = True,
        prepare: Callable[[torch.optim.Optimizer], None] | None = None,
    ) -> Iterator[Step]:
        """The recipe's steps on a model, one at a time, with an optimiser of their own.

        Args:
            model: on the lab's device, changed in place.
            data: what it is trained on.
            lab: where.
            seed: of order, augmentation, noise and dropout.
            training: whether layers are in training mode inside a step.
            prepare: is given the optimiser before the first step, e.g. to hook into its steps.
        """
        optimizer = torch.optim.SGD(
            model.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )
        if prepare is not None:
            prepare(optimizer)
        stream = batches(
            data, self.batch_size, seed, device=lab.device, epochs=self.epochs, augmentation=self.augmentation
        )
        return steps(
            model,
            noisy(stream, self.noise, seed / "noise") if self.noise else stream,
            self._objective(model),
            optimizer,
            seed=seed / "layers",
            schedule=self._schedule(optimizer, self.steps(len(data))),
            precision=self.precision,
            training=training,
        )

    def _objective(self, model: Classifier) -> Objective[Classifier]:
        """Cross-entropy; with `compile` by a compiled form of the model, which shares its parameters.

        An epoch's smaller last batch is not worth a second compilation, and torch's default would make that one for any
        size, which every further batch would pay for. The kernels are launched as one graph on a GPU, which is what
        makes it fast: one by one they take a CPU longer to launch than a card to run.
        """
        if not self.compile:
            return cross_entropy
        compiled = cast(nn.Module, torch.compile(model, dynamic=False, mode="reduce-overhead"))

        def objective(model: Classifier, batch: Batch) -> Tensor:
            return cross_entropy(compiled if len(batch.rows) == self.batch_size else model, batch)

        return objective

    def _schedule(self, optimizer: torch.optim.Optimizer, total: int) -> torch.optim.lr_scheduler.LRScheduler | None:
        if self.schedule == "constant":
            return None
        if self.schedule == "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        if self.schedule == "steps":
            return torch.optim.lr_scheduler.MultiStepLR(optimizer, [total // 2, 3 * total // 4])
        rise = max(1, round(RISE * total))
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / rise, (total - step) / max(1, total - rise), 1.0)
        )
