"""The one interface of every network: pixels in [0, 1] go in, and normalisation is its first layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bezoar.errors import ModelFileError, SettingError
from bezoar.models.anatomy import Unit, find_blocks, find_head, find_steps

This = TypeVar("This", bound="Classifier")
"""A classifier's own class; the run-time checks of the tests do not know `typing.Self`."""


class Classifier(nn.Module, ABC):
    """An image classifier: ``forward(x) = head(features(x))`` for x float [n, c, h, w] in [0, 1].

    Mean and standard deviation are buffers inside the model, so that triggers, adversarial
    perturbations and warps always live in pixel space.

    Args:
        classes: names of the classes, in the order of the outputs.
        mean, std: per channel, or one number for all channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classes: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std)).view(1, -1, 1, 1), persistent=False)

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """The last layer: features -> logits."""

    @abstractmethod
    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the last layer sees: the latent E(x)."""

    @abstractmethod
    def trace(self, images: Float[Tensor, "n c h w"]) -> tuple[list[Tensor], Float[Tensor, "n k"]]:
        """The outputs of the network's blocks, first to last, and the logits, from one pass."""

    def stages(self, images: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """The outputs of the network's blocks, first to last."""
        return self.trace(images)[0]

    def layers(self, images: Float[Tensor, "n c h w"], count: int) -> list[Tensor]:
        """The features, and before them the outputs of the last `count` - 1 blocks but the very last, from one pass.

        Those are the layers that Zhu et al. (arXiv:1905.05897, equation 4) compare: a count of 1 gives the features
        [n, d] alone, 2 the output of the second-to-last block and the features. Networks of bezoar's own count units
        (residual units and the like), which are finer than blocks.

        Raises:
            SettingError: the network has fewer blocks than `count`, or `count` is below 1.
        """
        seen: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(cast(Tensor, inputs[0])))
        try:
            blocks = self.stages(images)
        finally:
            handle.remove()
        _require_layers(count, len(blocks), "blocks")
        return [*blocks[-count:-1], seen[-1] if seen else self.features(images)]

    def normalise(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Subtract the mean and divide by the standard deviation."""
        return (images - self.mean) / self.std

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits."""
        return self.head(self.features(images))

    def weights(self) -> dict[str, Tensor]:
        """The state under the keys of the underlying network, as a user knows them."""
        return self.state_dict()

    def copy(self: This) -> This:
        """An independent copy; the original keeps its parameters, buffers and modes."""
        return deepcopy(self)

    @staticmethod
    def wrap(
        module: nn.Module, classes: Sequence[str], mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
    ) -> Classifier:
        """Make a classifier of any torchvision, timm or Hugging Face network without touching it.

        Raises:
            ModelFileError: the network does not end in a linear layer that gives one logit a class.
        """
        return WrappedClassifier(module, classes, mean, std)


class StagedClassifier(Classifier):
    """A classifier made of blocks in sequence, a pooling and a linear head: all of bezoar's own.

    A block is a unit, or a sequence of units and of what stands between them (a stem, a transition).

    Args:
        blocks: maps normalised images to feature maps, one block after the other.
        width: channels of the last block.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        width: int,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(classes, mean, std)
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.linear = nn.Linear(width, len(classes))

    @property
    def head(self) -> nn.Module:
        """The linear layer."""
        return self.linear

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The pooled output of the last block."""
        return self.pool(self.blocks(self.normalise(images)))

    def trace(self, images: Float[Tensor, "n c h w"]) -> tuple[list[Tensor], Float[Tensor, "n k"]]:
        """The outputs of the blocks, the stem's first, and the logits."""
        outputs: list[Tensor] = []
        here = self.normalise(images)
        for block in self.blocks:
            here = block(here)
            outputs.append(here)
        return outputs, self.head(self.pool(here))

    def layers(self, images: Float[Tensor, "n c h w"], count: int) -> list[Tensor]:
        """The features, and before them the outputs of the last `count` - 1 units but the very last, from one pass.

        A count of 2 gives the feature map [n, c, h, w] after the second-to-last unit, and the features [n, d]: the two
        layers of the multi-layer attack of Zhu et al. (arXiv:1905.05897, equation 4).

        Raises:
            SettingError: the network has fewer units than `count`, or `count` is below 1.
        """
        steps = list(find_steps(self.blocks))
        units = [place for place, step in enumerate(steps) if isinstance(step, Unit)]
        _require_layers(count, len(units), "units")
        outputs: list[Tensor] = []
        here = self.normalise(images)
        for place, step in enumerate(steps):
            here = step(here)
            if place in units[-count:-1]:
                outputs.append(here)
        return [*outputs, self.pool(here)]


def _require_layers(count: int, there: int, parts: str) -> None:
    most = max(1, there)  # the features are always to be had
    if not 1 <= count <= most:
        raise SettingError(f"{count} layers are wanted of a network of {there} {parts}; choose between 1 and {most}")


class WrappedClassifier(Classifier):
    """Somebody else's network behind the common interface; see `Classifier.wrap`."""

    def __init__(self, module: nn.Module, classes: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(classes, mean, std)
        self.module = module
        self.head_name = find_head(module, len(self.classes))

    @property
    def head(self) -> nn.Module:
        """The last linear layer with one output for each class."""
        return self.module.get_submodule(self.head_name)

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The input of the last linear layer, watched on its way through the network.

        Raises:
            ModelFileError: the network never calls that layer.
        """
        seen: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(cast(Tensor, inputs[0])))
        try:
            self._run(images)
        finally:
            handle.remove()
        if not seen:
            raise ModelFileError(
                f"{self._described()} does not call its layer {self.head_name!r}, so it has no features"
            )
        return seen[-1]

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits, as the network itself gives them."""
        return self._run(images)

    def trace(self, images: Float[Tensor, "n c h w"]) -> tuple[list[Tensor], Float[Tensor, "n k"]]:
        """The outputs of the network's blocks that are feature maps or tokens, first to last, and the logits."""
        seen: list[Tensor] = []

        def watch(_: nn.Module, __: object, output: object) -> None:
            first = cast(object, output[0]) if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor) and first.ndim >= 3:
                seen.append(first)

        handles = [block.register_forward_hook(watch) for block in find_blocks(self.module, self.head)]
        try:
            logits = self._run(images)
        finally:
            for handle in handles:
                handle.remove()
        return seen, logits

    def verify(self, shape: tuple[int, int, int]) -> None:
        """Send one image through and see that ``forward(x) = head(features(x))`` holds.

        A marker is put in the place of the head's output: only a network that returns it as it is
        gives logits. (Comparing numbers would be fooled by a head that is still all zeros.)

        Args:
            shape: (c, h, w) of the images that the network is to take.

        Raises:
            ModelFileError: images of that shape do not fit, or the network does not end in its head.
        """
        image = torch.full((1, *shape), 0.5, device=self.mean.device)
        marker = torch.linspace(-1.0, 1.0, len(self.classes), device=image.device)[None]
        handle = self.head.register_forward_hook(lambda _, __, output: marker.to(cast(Tensor, output)))
        try:
            with torch.no_grad(), mode(self, training=False):
                features, logits = self.features(image), self._run(image)
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            size = "x".join(str(side) for side in shape)
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelFileError(
                f"{self._described()} does not take images of {size} (channels x height x width): {reason}"
            ) from error
        finally:
            handle.remove()
        if features.ndim != 2 or logits.shape != marker.shape or not torch.equal(logits, marker.to(logits)):
            raise ModelFileError(
                f"{self._described()} does not end in its layer {self.head_name!r}: something follows or joins it; "
                "bezoar needs the logits of one linear layer, so leave out a softmax or a second head"
            )

    def _described(self) -> str:
        return type(self.module).__name__

    def _run(self, images: Tensor) -> Tensor:
        output: Any = self.module(self.normalise(images))
        if isinstance(output, Tensor):
            return output
        logits = getattr(output, "logits", None)
        if not isinstance(logits, Tensor):
            raise ModelFileError(f"{self._described()} gives a {type(output).__name__}, not a tensor of logits")
        return logits

    def weights(self) -> dict[str, Tensor]:
        """The state under the wrapped network's own keys."""
        return self.module.state_dict()


@contextmanager
def mode(model: nn.Module, training: bool) -> Generator[None]:
    """Switch a model to training or evaluation and give every layer its own mode back afterwards."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for layer, was in modes:
            layer.training = was


def frozen(model: Classifier) -> Classifier:
    """A copy for looking only: evaluation mode, no parameter wants a gradient."""
    return model.copy().eval().requires_grad_(False)
