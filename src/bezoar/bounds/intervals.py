"""Interval bound propagation: where every activation can lie while the image moves in its ball."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from jaxtyping import Float
from torch import Tensor

from bezoar.bounds.layers import Affine, Dense, Reshape, Sum
from bezoar.bounds.network import Network, Node
from bezoar.records import Norm

TINY = 1e-30
"""Added under square roots, whose gradient at 0 is no number; a reach of 1e-15 is far below rounding."""


@dataclass(frozen=True, eq=False)
class Region:
    """What values [n, ...] can be: a box, and where it is known also an ellipsoid along the axes.

    Attributes:
        lower, upper: the box.
        centre, squares: of the ellipsoid, the middle and the squared half axes; None for a box alone.
    """

    lower: Tensor
    upper: Tensor
    centre: Tensor | None = None
    squares: Tensor | None = None

    def split(self, size: int) -> list[Region]:
        """The regions of so many images at a time."""
        parts = (self.lower, self.upper, self.centre, self.squares)
        pieces = [repeat(None) if part is None else part.split(size) for part in parts]
        return [Region(*each) for each in zip(*pieces, strict=False)]  # pyright: ignore[reportArgumentType] - as above

    def tightened(self, lower: Tensor, upper: Tensor) -> Region:
        """What lies in another box too."""
        return Region(torch.maximum(self.lower, lower), torch.minimum(self.upper, upper), self.centre, self.squares)


def ball(images: Float[Tensor, "n c h w"], epsilon: float | Float[Tensor, "n"], norm: Norm) -> Region:
    """The images within `epsilon` of each, as far as they lie in [0, 1]."""
    radius = torch.as_tensor(epsilon, dtype=images.dtype, device=images.device).reshape(-1, 1, 1, 1)
    lower, upper = (images - radius).clamp(min=0), (images + radius).clamp(max=1)
    if norm == "inf":
        return Region(lower, upper)
    return Region(lower, upper, images, radius.square().expand_as(images))


def propagate(network: Network, region: Region) -> list[Region]:
    """The region of each node's output, for images in a region (Gowal et al., arXiv:1810.12715, section 3)."""
    regions = [region]
    for node in network.nodes[1:]:
        regions.append(behind(node, regions))
    return regions


def behind(node: Node, regions: Sequence[Region]) -> Region:
    """The region of one node's output, given those of the nodes before."""
    first, *second = (regions[source] for source in node.sources)
    match node.layer:
        case Reshape() as layer:
            parts = (first.lower, first.upper, first.centre, first.squares)
            return Region(*(None if part is None else layer.apply(part) for part in parts))  # pyright: ignore[reportArgumentType] - a box has bounds
        case Affine() as layer:
            return _affine(layer, first)
        case Sum():
            return Region(first.lower + second[0].lower, first.upper + second[0].upper)
        case None:
            return first
        case layer:  # the others grow with every input
            return Region(layer.apply(first.lower), layer.apply(first.upper))


def _affine(layer: Affine, region: Region) -> Region:
    middle, reach = (region.lower + region.upper) / 2, (region.upper - region.lower) / 2
    middle, reach = layer.apply(middle), layer.spread(reach, 1)
    box = Region(middle - reach, middle + reach)
    if region.centre is None or region.squares is None:
        return box
    centre, squares = layer.apply(region.centre), layer.spread(region.squares, 2)
    half = (squares + TINY).sqrt()
    inside = box.tightened(centre - half, centre + half)
    return Region(inside.lower, inside.upper, centre, squares) if layer.diagonal else inside


def least(weight: Float[Tensor, "n s d"], bias: Float[Tensor, "n s"], region: Region) -> Float[Tensor, "n s"]:
    """The least value of ``weight v + bias`` for v in a region [n, ...]: exact for its box, and for its ellipsoid.

    Of a region with both, the larger of the two is given, which bounds the least value in what they share.
    """
    lower, upper = region.lower.flatten(1)[:, :, None], region.upper.flatten(1)[:, :, None]
    found = (weight @ ((lower + upper) / 2) - weight.abs() @ ((upper - lower) / 2))[:, :, 0]
    if region.centre is not None and region.squares is not None:
        reach = (weight.square() @ region.squares.flatten(1)[:, :, None] + TINY).sqrt()
        found = torch.maximum(found, (weight @ region.centre.flatten(1)[:, :, None] - reach)[:, :, 0])
    return found + bias


def differences(head: Dense, labels: Tensor, rivals: Tensor) -> tuple[Float[Tensor, "n s d"], Float[Tensor, "n s"]]:
    """The head merged with the wanted margins ``z_label - z_rival``: weights and biases for rivals [n, s]."""
    weight = head.weight[labels][:, None] - head.weight[rivals]
    if head.bias is None:
        return weight, weight.new_zeros(weight.shape[:2])
    return weight, head.bias[labels][:, None] - head.bias[rivals]
