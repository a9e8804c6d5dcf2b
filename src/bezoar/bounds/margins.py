"""Lower bounds of the margins of a classifier: the one function that trainers, attacks and certifiers hold."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bezoar.bounds.alpha import optimised
from bezoar.bounds.intervals import ball, behind, differences, least, propagate
from bezoar.bounds.linear import BASE, lower_bounds, relaxed, tightened
from bezoar.bounds.network import read
from bezoar.bounds.precision import whole_floats
from bezoar.errors import SettingError
from bezoar.models.classifier import Classifier
from bezoar.records import Norm

Method = Literal["ibp", "crown_ibp", "crown", "alpha_crown"]
"""From cheap to tight, as a rule: intervals; linear bounds between intervals; linear bounds alone; slopes optimised.

On a network that was trained for its interval bounds plain CROWN can be the looser one (arXiv:1906.06316).
"""

STEPS = 20
"""Of alpha-CROWN."""


def margins(
    model: Classifier,
    images: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, "n"],
    epsilon: float | Float[Tensor, "n"],
    *,
    method: Method,
    norm: Norm = "inf",
    steps: int = STEPS,
) -> Float[Tensor, "n k"]:
    """Lower bounds of ``z_label - z_j`` for every class j, over each image's ball as far as it lies in [0, 1].

    The last layer is merged with the difference of the two logits before anything is bounded. Bounds hold up to the
    rounding of the model's floating-point type. With a radius of 0 they are the margins themselves. Batch
    normalisation stands by its running statistics and dropout drops nothing, whatever the model's mode.

    Args:
        model: one of bezoar's own networks, or a wrapped `nn.Sequential`, of the layers of `bezoar.bounds.network`.
        images: in [0, 1], on the model's device.
        labels: int64, the class whose lead is bounded.
        epsilon: the radius of the ball, at least 0, in pixels in [0, 1]; one for all images or one for each.
        method: how. `ibp` and `crown_ibp` are differentiable in the model's parameters (and in the pixels), the others
            are constants.
        norm: of the ball.
        steps: of alpha-CROWN, at least 1.

    Returns:
        float [n, k]; exactly 0 at j = label.

    Raises:
        SettingError: a layer that bounds do not go through, or a maximum under any method but `ibp`; the message
            names it. An unknown method, or a radius below 0.
    """
    if method not in get_args(Method):
        raise SettingError(f"method: {method!r} is none of {', '.join(get_args(Method))}")
    if bool((torch.as_tensor(epsilon) < 0).any()):
        raise SettingError(f"epsilon: a radius is at least 0, not {float(torch.as_tensor(epsilon).min())}")
    differentiable = method in ("ibp", "crown_ibp")
    with whole_floats(), nullcontext() if differentiable else torch.no_grad():
        network = read(model, images.shape[1:], detached=not differentiable)
        rivals = _rivals(labels, network.classes)
        weight, bias = differences(network.head, labels, rivals)
        region = ball(images.contiguous(memory_format=torch.channels_last), epsilon, norm)
        if method == "ibp":
            found = least(weight, bias, propagate(network, region)[-1])
        else:
            network.require_linear()
            crown_ibp = method == "crown_ibp"
            lines = relaxed(network, propagate(network, region)) if crown_ibp else tightened(network, region)
            base = behind(network.nodes[BASE], [region])
            if method == "alpha_crown":
                found = bias + optimised(network, weight, lines, base, count=steps)
            else:
                found = bias + lower_bounds(network, len(network.nodes) - 1, weight, lines, base)
        return found.new_zeros(len(labels), network.classes).scatter(1, rivals, found)


def _rivals(labels: Tensor, classes: int) -> Tensor:
    """Every other class than the label, in order: int64 [n, k - 1]."""
    others = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    return others + (others >= labels[:, None])
