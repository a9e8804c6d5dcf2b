"""The one step generator: trainers, repairers, detectors and tuners all consume it, and nobody writes a second loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from bezoar.models.classifier import mode
from bezoar.seed import Seed
from bezoar.training.batches import Batch

Model = TypeVar("Model", bound=nn.Module)
Objective = Callable[[Model, Batch], Tensor]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Step:
    """One optimisation step that has been taken: its number from 1, and the loss before it (a 0-d tensor)."""

    number: int
    loss: Tensor


def steps(
    model: Model,
    batches: Iterable[Batch],
    objective: Objective[Model],
    optimizer: torch.optim.Optimizer,
    *,
    seed: Seed,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    precision: Precision = "float32",
    training: bool = True,
    after: Callable[[Model, Batch], None] | None = None,
    clip: float | None = None,
) -> Iterator[Step]:
    """Minimise an objective, one step for each batch, and yield after every step.

    Modes and random state are scoped inside each step: whoever looks at the model between two
    steps sees it in its former mode with the global generators untouched, and an iterator that is
    abandoned leaves nothing behind.

    Args:
        model: what is optimised, changed in place.
        batches: one batch a step; the generator ends with them.
        objective: (model, batch) -> loss, a 0-d tensor.
        optimizer: holds the parameters that move.
        seed: for layers that draw (dropout).
        schedule: a learning-rate schedule that is advanced after every step.
        precision: ``bfloat16`` runs the objective under autocast.
        training: whether the model is in training mode inside a step.
        after: called after the step, e.g. to project parameters back.
        clip: the largest Euclidean norm of all gradients together; larger ones are scaled down to it.
    """
    for number, batch in enumerate(batches, start=1):
        device = batch.images.device.type
        with mode(model, training), (seed / number).scoped():
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                loss = objective(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if clip is not None:
                moving = [parameter for group in optimizer.param_groups for parameter in group["params"]]
                nn.utils.clip_grad_norm_(moving, clip)
            optimizer.step()
            if schedule is not None:
                schedule.step()
            if after is not None:
                after(model, batch)
        yield Step(number, loss.detach())


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of a classifier on a batch."""
    return nn.functional.cross_entropy(model(batch.images), batch.labels)
