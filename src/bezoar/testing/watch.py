"""What a claim looks at: random generators and other global state, the state of a model, the pixels of a data set."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from bezoar.component import Component
from bezoar.records import Dataset, Trusted

Claim = Callable[[Any], None]
"""Takes a component, and raises if the claim does not hold for it."""


Subject = TypeVar("Subject", bound=Component)
Result = TypeVar("Result")


class UnmetClaimError(AssertionError):
    """A claim does not hold; the message says in what way."""


def require(holds: bool, otherwise: str) -> None:
    """Raise unless something holds."""
    if not holds:
        raise UnmetClaimError(otherwise)


def remembered(run: Callable[[Subject], Result]) -> Callable[[Subject], Result]:
    """The same function, run once for all claims in a row that only look at what it makes of one component."""
    last: list[tuple[Subject, Result]] = []

    def look(component: Subject) -> Result:
        if not last or last[0][0] != component:
            last[:] = [(component, run(component))]
        return last[0][1]

    return look


def bits(tensor: Tensor) -> bytes:
    """Type, shape and every bit of a tensor."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + data


def surroundings() -> dict[str, object]:
    """Everything global that a public call must leave as it was."""
    name, keys, *position = np.random.get_state(legacy=True)  # noqa: NPY002 - the global generator is what is watched
    return {
        "torch's random state": bits(torch.get_rng_state()),
        "numpy's random state": (name, np.asarray(keys).tobytes(), *position),
        "python's random state": random.getstate(),
        "whether gradients are on": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "the default type": torch.get_default_dtype(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the number of threads": torch.get_num_threads(),
    }


def state(model: nn.Module) -> dict[str, object]:
    """Everything about a model that a player could leave changed."""
    parameters, layers = dict(model.named_parameters()), dict(model.named_modules())
    return {
        "weights": {name: bits(parameter) for name, parameter in parameters.items()},
        "buffers": {name: bits(buffer) for name, buffer in model.named_buffers()},
        "modes": {name: layer.training for name, layer in layers.items()},
        "which parameters want a gradient": {name: parameter.requires_grad for name, parameter in parameters.items()},
        "gradients": {name: None if p.grad is None else bits(p.grad) for name, p in parameters.items()},
        "hooks": hooks(model),
    }


def hooks(model: nn.Module) -> dict[str, int]:
    """How many hooks hang on each layer."""
    counts: dict[str, int] = {}
    for name, layer in model.named_modules():
        kinds = {kind: held for kind, held in vars(layer).items() if kind.endswith("_hooks") and held}
        counts |= {f"{name}{kind}": len(held) for kind, held in kinds.items()}
    return counts


def pixels(data: Dataset | Trusted) -> dict[str, object]:
    """The images and labels of a data set, bit by bit."""
    images = data.images if isinstance(data, Trusted) else data.images()
    return {"images": bits(images), "labels": bits(data.labels)}


def require_unchanged(before: Mapping[str, object], after: Mapping[str, object], whose: str = "") -> None:
    """Raise if two looks at the same thing differ, and name what differs."""
    changed = [name for name in before if before[name] != after[name]]
    require(not changed, f"changed: {whose}{', '.join(changed)}")


@contextmanager
def nothing_global_changes() -> Generator[None]:
    """Raise if global state is not the same after as before."""
    before = surroundings()
    yield
    require_unchanged(before, surroundings())


@contextmanager
def generators_kept() -> Generator[None]:
    """Give the global generators back as they were."""
    of_torch, of_python = torch.get_rng_state(), random.getstate()
    of_numpy = np.random.get_state()  # noqa: NPY002 - the global generator is what is kept
    try:
        yield
    finally:
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


@contextmanager
def other_generators() -> Generator[None]:
    """Put the global generators elsewhere: whoever draws from them gets other numbers inside."""
    with generators_kept():
        torch.manual_seed(20)
        random.seed(20)
        np.random.seed(20)  # noqa: NPY002
        yield
