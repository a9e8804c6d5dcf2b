"""Linear bounds, propagated backwards: CROWN and CROWN-IBP (arXiv:1811.00866, arXiv:1906.06316)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bezoar.bounds.intervals import Region, behind, least
from bezoar.bounds.layers import Affine, Rectifier, Sum
from bezoar.bounds.network import Network

ROWS = 256
"""Bounds of so many activations are computed at a time at most."""

NUMBERS = 2**25
"""Fewer at a time where the coefficients of one layer would be more numbers than this (128 MB as float32)."""

NEAR = 2**19
"""On a CPU so many images go through together that a layer's coefficients stay below this (2 MB), near its caches."""

BASE = 1
"""The node of the normalisation, behind which a box is still a box: nothing need be followed back to the pixels."""

FLAT = 1e-12
"""An interval is taken to be at least this long when it is divided by."""


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A rectifier between two lines: ``lower x <= max(x, 0) <= upper x + shift`` for x within its interval.

    Attributes:
        lower: a slope in [0, 1], [n, ...], or [n, s, ...] with one for each row of coefficients.
        upper, shift: the chord over the interval, [n, ...].
        unstable: bool [n, ...], whether the interval has both signs; elsewhere both lines are the rectifier itself.
    """

    lower: Tensor
    upper: Tensor
    shift: Tensor
    unstable: Tensor

    def split(self, size: int) -> list[Relaxation]:
        """The lines of so many images at a time."""
        parts = (self.lower, self.upper, self.shift, self.unstable)
        return [Relaxation(*each) for each in zip(*(part.split(size) for part in parts), strict=True)]


def relax(region: Region) -> Relaxation:
    """The lines for a rectifier's input; the lower has slope 1 where the interval is mostly positive, else 0."""
    low, high = -(-region.lower).relu(), region.upper.relu()
    upper = high / (high - low).clamp_min(FLAT)
    unstable = (region.lower < 0) & (region.upper > 0)
    return Relaxation((upper > 0.5).to(upper), upper, -low * upper, unstable)


def lower_bounds(
    network: Network,
    start: int,
    coefficients: Float[Tensor, "n s *shape"],
    relaxations: Mapping[int, Relaxation],
    region: Region,
) -> Float[Tensor, "n s"]:
    """Lower bounds of linear functions of a node's output, for images in a region.

    Args:
        network: whose.
        start: the number of the node.
        coefficients: s functions for each image.
        relaxations: of every rectifier before the node, by its number.
        region: of node `BASE`, the normalised image, n of them.
    """
    size = _together(network, start, coefficients)
    if len(coefficients) <= size:
        return _backwards(network, start, coefficients, relaxations, region)
    before = {number: one.split(size) for number, one in relaxations.items() if number < start}
    each = zip(coefficients.split(size), region.split(size), strict=True)
    return torch.cat(
        [
            _backwards(network, start, some, {number: one[place] for number, one in before.items()}, within)
            for place, (some, within) in enumerate(each)
        ]
    )


def _together(network: Network, start: int, coefficients: Tensor) -> int:
    """How many images go through at a time."""
    count, rows = coefficients.shape[:2]
    if coefficients.device.type != "cpu" or not count:
        return max(1, count)
    return max(1, NEAR // max(1, rows * _widest(network, start)))


def _widest(network: Network, last: int) -> int:
    return max(node.shape.numel() for node in network.nodes[: last + 1])


def _backwards(
    network: Network, start: int, coefficients: Tensor, relaxations: Mapping[int, Relaxation], region: Region
) -> Tensor:
    count, rows = coefficients.shape[:2]
    pending = {start: coefficients.flatten(0, 1)}
    offset = coefficients.new_zeros(count, rows)
    for number in range(start, BASE, -1):
        if number not in pending:
            continue
        here, node = pending.pop(number), network.nodes[number]
        match node.layer:
            case Affine() as layer:
                added = layer.offset(here)
                offset = offset if added is None else offset + added.reshape(count, rows)
                here = layer.transpose(here, network.nodes[node.sources[0]].shape)
            case Rectifier():
                here, added = _through(here.unflatten(0, (count, rows)), relaxations[number])
                offset = offset + added
            case Sum():
                pass
            case layer:
                raise NotImplementedError(f"linear bounds through {layer}")  # `Network.require_linear` came before
        for source in node.sources:
            pending[source] = pending[source] + here if source in pending else here
    return least(pending[BASE].reshape(count, rows, -1), offset, region)


def _through(coefficients: Tensor, relaxation: Relaxation) -> tuple[Tensor, Tensor]:
    """Behind a rectifier -> before it: coefficients [n s, ...] of [n, s, ...], and what the shifts add [n, s]."""
    negative = coefficients.clamp(max=0)
    shift = relaxation.shift
    if coefficients.ndim == 5 and not coefficients.is_contiguous():  # channels last: so that flattening copies nothing
        added = negative.movedim(2, 4).flatten(2) @ shift.movedim(1, 3).flatten(1)[:, :, None]
    else:
        added = negative.flatten(2) @ shift.flatten(1)[:, :, None]
    lower = relaxation.lower if relaxation.lower.ndim == coefficients.ndim else relaxation.lower[:, None]
    steeper = relaxation.upper[:, None] - lower
    return torch.addcmul(coefficients * lower, negative, steeper).flatten(0, 1), added[:, :, 0]


def relaxed(network: Network, regions: list[Region]) -> dict[int, Relaxation]:
    """Every rectifier's lines, given each node's region."""
    return {
        number: relax(regions[node.sources[0]])
        for number, node in enumerate(network.nodes)
        if isinstance(node.layer, Rectifier)
    }


def tightened(network: Network, region: Region) -> dict[int, Relaxation]:
    """Every rectifier's lines by CROWN: its input is bounded by linear bounds of the layers before, and by intervals.

    Not differentiable.
    """
    regions, relaxations = [region], dict[int, Relaxation]()
    with torch.no_grad():
        for number, node in enumerate(network.nodes[1:], start=1):
            if isinstance(node.layer, Rectifier):
                source = node.sources[0]
                if not _exact(network, source):
                    regions[source] = _tighter(network, source, relaxations, regions)
                relaxations[number] = relax(regions[source])
            regions.append(behind(node, regions))
    return relaxations


def _exact(network: Network, number: int) -> bool:
    """Whether intervals are exact: on the way from the image no more than one layer mixes its inputs."""
    mixing = 0
    while number:
        node = network.nodes[number]
        if not isinstance(node.layer, Affine):
            return False
        mixing += not node.layer.diagonal
        number = node.sources[0]
    return mixing <= 1


def _tighter(network: Network, number: int, relaxations: Mapping[int, Relaxation], regions: list[Region]) -> Region:
    """A node's region after linear bounds, which are computed where the sign of some image's activation is open."""
    region = regions[number]
    lower, upper = region.lower.flatten(1).clone(), region.upper.flatten(1).clone()
    count, size = lower.shape
    undecided = ((lower < 0) & (upper > 0)).any(0).nonzero()[:, 0]
    if not len(undecided):
        return region
    rows = max(1, min(ROWS, NUMBERS // (count * _widest(network, number))))
    for chosen in undecided.split(rows):
        ones = torch.nn.functional.one_hot(chosen, size).to(lower).view(1, len(chosen), *network.nodes[number].shape)
        each = ones.expand(count, *ones.shape[1:])
        below = lower_bounds(network, number, each, relaxations, regions[BASE])
        above = -lower_bounds(network, number, -each, relaxations, regions[BASE])
        lower[:, chosen] = torch.maximum(lower[:, chosen], below)
        upper[:, chosen] = torch.minimum(upper[:, chosen], above)
    shape = region.lower.shape
    return Region(lower.view(shape), upper.view(shape))
