"""Of what parts a network is made: the units of bezoar's own, the head and the blocks of somebody else's."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bezoar.errors import ModelFileError


class Unit(nn.Sequential):
    """What an architecture repeats: a residual unit, a dense layer, an Inception module.

    It is an `nn.Sequential` but for its name, by which `StagedClassifier.layers` tells it from the stages around it.
    """


class Concatenate(nn.Module):
    """The outputs of several branches, one behind the other along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, inputs: Tensor) -> Tensor:
        """The branches run in order, so the last layer that runs is the last branch's."""
        return torch.cat([branch(inputs) for branch in self.branches], dim=1)


def find_steps(block: nn.Module) -> Iterator[nn.Module]:
    """What runs one after the other, with every sequence opened that is no unit."""
    if isinstance(block, nn.Sequential) and not isinstance(block, Unit):
        for part in block:
            yield from find_steps(part)
    else:
        yield block


def find_head(module: nn.Module, classes: int) -> str:
    """The name of the last linear layer with one output for each class.

    Raises:
        ModelFileError: there is none; the message says in what the network ends instead.
    """
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    linears = [(name, layer) for name, layer in layers if isinstance(layer, nn.Linear)]
    ending = [name for name, layer in linears if layer.out_features == classes]
    if ending:
        return ending[-1]
    if not layers:
        found = "it has no layers at all"
    elif isinstance(layers[-1][1], nn.Conv2d):
        found = f"it ends in the convolution {layers[-1][0]!r}, which bezoar cannot take as a head"
    else:
        found = (
            f"its last one, {linears[-1][0]!r}, gives {linears[-1][1].out_features}; check the number of class names"
        )
    raise ModelFileError(
        f"{type(module).__name__} has no linear layer with {classes} outputs, one for each class: {found}"
    )


DOMINANT = 0.85  # above the 3/4 that the last stage of a network whose stages double in width may hold


def find_blocks(module: nn.Module, head: nn.Module) -> list[nn.Module]:
    """The blocks of a network: its children but for the head; one that holds nearly all weights is opened in turn."""
    children = [child for child in module.children() if all(inner is not head for inner in child.modules())]
    sizes = [sum(parameter.numel() for parameter in child.parameters()) for child in children]
    blocks: list[nn.Module] = []
    for child, size in zip(children, sizes, strict=True):
        container = isinstance(child, nn.ModuleList) or any(
            isinstance(inner, nn.ModuleList) for inner in child.children()
        )
        whole = size > DOMINANT * sum(sizes) and len(list(child.children())) > 1
        blocks += find_blocks(child, head) if container or whole else [child]
    return blocks
