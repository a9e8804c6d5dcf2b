"""A classifier as bounds see it: its layers in the order in which they run, each with where its input comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from bezoar.bounds.layers import (
    Convolution,
    Dense,
    Layer,
    Maximum,
    Pair,
    Pooling,
    Rectifier,
    Reshape,
    Scale,
    Sum,
)
from bezoar.errors import SettingError
from bezoar.models.classifier import Classifier, StagedClassifier, WrappedClassifier
from bezoar.models.dropout import Dropout
from bezoar.models.resnet import Residual

KNOWN = (
    "Sequential, Residual, Conv2d, Linear, BatchNorm2d, ReLU, AvgPool2d, AdaptiveAvgPool2d, Flatten, Unflatten, "
    "Identity, Dropout, and MaxPool2d for intervals alone"
)


@dataclass(frozen=True, eq=False)
class Node:
    """A layer in its place.

    Attributes:
        name: of the module in the classifier, for messages.
        layer: what it does; None for the image, which is node 0.
        sources: the numbers of the nodes whose outputs it takes: one, or two for a sum.
        shape: of its output for one image.
    """

    name: str
    layer: Layer | None
    sources: tuple[int, ...]
    shape: torch.Size


@dataclass(frozen=True, eq=False)
class Network:
    """All nodes in the order in which they run, the last of which gives the features [d]; and the linear head."""

    nodes: tuple[Node, ...]
    head: Dense

    @property
    def classes(self) -> int:
        """How many logits there are."""
        return len(self.head.weight)

    def require_linear(self) -> None:
        """Refuse a layer that has no linear bounds here.

        Raises:
            SettingError: there is a maximum; the message says what to use instead.
        """
        for node in self.nodes:
            if isinstance(node.layer, Maximum):
                raise SettingError(
                    f"no linear bounds go through {node.name!r}, a MaxPool2d: use the method 'ibp' alone "
                    "(methods: [ibp]), or a network with strides or AvgPool2d in its place"
                )


def read(model: Classifier, shape: Sequence[int], *, detached: bool = False) -> Network:
    """The layers of a classifier for images of that shape (c, h, w).

    Normalisation is the first layer, batch normalisation stands by its running statistics and dropout drops nothing,
    whatever the model's mode. Weights are shared with the model, so that bounds are differentiable in them.

    Args:
        model: one of bezoar's own networks, or a wrapped `nn.Sequential` that ends in its head.
        shape: of one image.
        detached: whether the weights are cut off from the model's, so that no gradient reaches it.

    Raises:
        SettingError: a layer is of another kind or has hooks, the head is not one linear layer, or the network's way
            from images to logits is a function of its own; the message names it.
    """
    _require_unhooked(model)
    parts, head = _parts(model)
    if not _plain(head, nn.Linear):
        raise SettingError(f"the head is a {type(head).__name__}; bounds need one nn.Linear from features to logits")
    reader = _Reader(shape, model.mean.device, detached=detached)
    mean, std = (statistic.reshape(-1).expand(shape[0]) for statistic in (model.mean, model.std))
    here = reader.add("normalisation", Scale(1 / std, -mean / std), 0)
    for name, part in parts:
        here = reader.read(name, part, here)
    if len(reader.nodes[here].shape) != 1:
        raise SettingError(f"the head gets features of the shape {tuple(reader.nodes[here].shape)}, not one vector")
    linear = cast(nn.Linear, head)
    return Network(tuple(reader.nodes), Dense(reader.take(linear.weight), reader.take_if_there(linear.bias)))


def _require_unhooked(model: Classifier) -> None:
    """Refuse a module that does more than its kind does: bounds would vouch for another function."""
    for name, module in model.named_modules():
        added = [kind for kind in ("_forward_hooks", "_forward_pre_hooks", "forward") if vars(module).get(kind)]
        if added:
            raise SettingError(
                f"bounds do not see what a hook, or a `forward` of its own, does to {name or 'the model'!r}, a "
                f"{type(module).__name__}; remove it"
            )


def _parts(model: Classifier) -> tuple[list[tuple[str, nn.Module]], nn.Module]:
    """What runs before the head, by name, and the head."""
    if isinstance(model, StagedClassifier):
        return [("blocks", model.blocks), ("pool", model.pool)], model.head
    if isinstance(model, WrappedClassifier) and _plain(model.module, nn.Sequential):
        parts = list(_opened("module", cast(nn.Sequential, model.module)))
        if parts and parts[-1][1] is model.head:
            return parts[:-1], model.head
        raise SettingError(
            f"{parts[-1][0]!r}, a {type(parts[-1][1]).__name__}, follows the head {model.head_name!r}: "
            "bounds need a network that ends in its linear head"
        )
    inner = model.module if isinstance(model, WrappedClassifier) else model
    raise SettingError(
        f"bounds cannot follow a {type(inner).__name__}: they go through bezoar's own networks and through an "
        "nn.Sequential (Classifier.wrap), whose layers are modules in a known order"
    )


def _opened(name: str, module: nn.Sequential) -> list[tuple[str, nn.Module]]:
    parts: list[tuple[str, nn.Module]] = []
    for label, part in module.named_children():
        inner = f"{name}.{label}"
        parts += _opened(inner, cast(nn.Sequential, part)) if _plain(part, nn.Sequential) else [(inner, part)]
    return parts


def _plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of a kind and does what the kind does: a subclass may run as it likes."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def _pair(value: int | tuple[int, ...] | Sequence[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class _Reader:
    """Turns modules into nodes; an image of zeros goes along for the shapes."""

    def __init__(self, shape: Sequence[int], device: torch.device, *, detached: bool) -> None:
        self.nodes = [Node("image", None, (), torch.Size(shape))]
        self.detached = detached
        self._values = [torch.zeros(1, *shape, device=device)]

    def take(self, tensor: Tensor) -> Tensor:
        return tensor.detach() if self.detached else tensor

    def take_if_there(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else self.take(tensor)

    def add(self, name: str, layer: Layer, *sources: int) -> int:
        """A new node, and its number."""
        with torch.no_grad():
            value = layer.apply(torch.cat([self._values[source] for source in sources]))
        self._values.append(value)
        self.nodes.append(Node(name, layer, sources, value.shape[1:]))
        return len(self.nodes) - 1

    def read(self, name: str, module: nn.Module, here: int) -> int:
        """The nodes of a module behind node `here`, and the number of the last of them."""
        if _plain(module, nn.Sequential):
            for label, part in module.named_children():
                here = self.read(f"{name}.{label}", part, here)
            return here
        if _plain(module, Residual):
            residual = cast(Residual, module)
            body = self.read(f"{name}.body", residual.body, here)
            return self.add(name, Sum(), body, self.read(f"{name}.shortcut", residual.shortcut, here))
        if any(_plain(module, kind) for kind in (nn.Identity, nn.Dropout, nn.Dropout2d, Dropout)):
            return here
        layer = self._layer(name, module, self.nodes[here].shape)
        return here if layer is None else self.add(name, layer, here)

    def _layer(self, name: str, module: nn.Module, shape: torch.Size) -> Layer | None:  # noqa: PLR0911 - one a kind
        """The layer that a module is; None if it leaves images of that shape as they are."""
        if _plain(module, nn.Conv2d):
            return self._convolution(name, cast(nn.Conv2d, module))
        if _plain(module, nn.Linear):
            return self._dense(name, cast(nn.Linear, module), shape)
        if _plain(module, nn.BatchNorm2d) and cast(nn.BatchNorm2d, module).running_mean is not None:
            return self._normalisation(cast(nn.BatchNorm2d, module))
        if _plain(module, nn.ReLU):
            return Rectifier()
        if _plain(module, nn.AvgPool2d):
            return _pooling(name, cast(nn.AvgPool2d, module))
        if _plain(module, nn.AdaptiveAvgPool2d):
            return _adaptive(name, cast(nn.AdaptiveAvgPool2d, module), shape)
        if _plain(module, nn.MaxPool2d) and not cast(nn.MaxPool2d, module).return_indices:
            most = cast(nn.MaxPool2d, module)
            kernel, padding, dilation = _pair(most.kernel_size), _pair(most.padding), _pair(most.dilation)
            return Maximum(kernel, _pair(most.stride), padding, dilation, most.ceil_mode)
        if _plain(module, nn.Flatten) or _plain(module, nn.Unflatten):
            with torch.no_grad():
                changed = module(torch.zeros(2, *shape)).shape
            if changed[0] == 2:
                return Reshape(changed[1:])
        raise SettingError(
            f"bounds do not go through {name!r}, a {type(module).__name__} ({module}); known are {KNOWN}"
        )

    def _dense(self, name: str, module: nn.Linear, shape: torch.Size) -> Dense:
        if len(shape) != 1:
            raise SettingError(
                f"bounds do not go through {name!r}: a Linear gets feature maps of {'x'.join(map(str, shape))}; put a "
                "Flatten before it"
            )
        return Dense(self.take(module.weight), self.take_if_there(module.bias))

    def _convolution(self, name: str, module: nn.Conv2d) -> Convolution:
        kernel, dilation = _pair(module.kernel_size), _pair(module.dilation)
        padding = module.padding
        if padding == "valid":
            padding = (0, 0)
        elif padding == "same":
            around = [dilation[i] * (kernel[i] - 1) for i in (0, 1)]
            padding = (around[0] // 2, around[1] // 2) if not any(side % 2 for side in around) else "uneven"
        if isinstance(padding, str) or module.padding_mode != "zeros":
            raise SettingError(
                f"bounds do not go through {name!r}: its padding is {module.padding!r}, {module.padding_mode!r}; "
                "pad with the same number of zeros on both sides"
            )
        weight, bias = self.take(module.weight), self.take_if_there(module.bias)
        return Convolution(weight, bias, _pair(module.stride), _pair(padding), dilation, module.groups)

    def _normalisation(self, module: nn.BatchNorm2d) -> Scale:
        mean, variance = cast(Tensor, module.running_mean), cast(Tensor, module.running_var)
        factor = (variance + module.eps).rsqrt()
        if module.weight is not None:  # pyright: ignore[reportUnnecessaryComparison] - None without affine
            factor = factor * self.take(module.weight)
        bias = self.take_if_there(module.bias)
        return Scale(factor, -mean * factor if bias is None else bias - mean * factor)


def _pooling(name: str, module: nn.AvgPool2d) -> Pooling:
    kernel, padding = _pair(module.kernel_size), _pair(module.padding)
    if module.ceil_mode or (any(padding) and not module.count_include_pad and not module.divisor_override):
        raise SettingError(
            f"bounds do not go through {name!r}: its windows at the border count fewer pixels; use ceil_mode=False "
            "and count_include_pad=True"
        )
    return Pooling(kernel, _pair(module.stride), padding, module.divisor_override or kernel[0] * kernel[1])


def _adaptive(name: str, module: nn.AdaptiveAvgPool2d, shape: torch.Size) -> Pooling | None:
    wanted = module.output_size
    sides = (wanted, wanted) if isinstance(wanted, int) or wanted is None else tuple(wanted)
    target = [there if side is None else side for side, there in zip(sides, shape[1:], strict=True)]
    if any(there % side for side, there in zip(target, shape[1:], strict=True)):
        raise SettingError(
            f"bounds do not go through {name!r}: {target[0]}x{target[1]} does not divide feature maps of "
            f"{shape[1]}x{shape[2]}"
        )
    kernel = (shape[1] // target[0], shape[2] // target[1])
    return None if kernel == (1, 1) else Pooling(kernel, kernel, (0, 0), kernel[0] * kernel[1])
