"""Dropout for networks that are randomised while poisons are crafted on them, with a mask that belongs to the image.

Substitute networks are trained with dropout, and poisons are crafted with the same dropout left on and batch
normalisation in evaluation mode (Zhu et al., arXiv:1905.05897). torch draws a mask for a batch; here the mask can also
be a function of a key of the image, so that an image meets the same network whichever batch it travels in.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bezoar.errors import SettingError

DropoutRate = Annotated[float, Field(ge=0, lt=1)]
"""The probability with which an activation is dropped."""

WEYL = 0x9E3779B9 - 2**32  # 2^32 / golden ratio, as int32: consecutive numbers are far apart after it


class Dropout(nn.Module):
    """Drops each activation with probability `rate` and multiplies the others by 1 / (1 - `rate`).

    In training mode the mask comes from torch's global generator, as `nn.Dropout`'s does, and in evaluation mode
    nothing is dropped. Within `randomised` the mask comes from the images' keys, in either mode.

    Raises:
        SettingError: the rate is not in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise SettingError(f"dropout: a rate is at least 0 and below 1, not {rate}")
        self.rate = rate
        self.words: Tensor | None = None  # int32 [2, n]: what `randomised` made of the keys, for this layer
        self._positions: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Activations [n, ...] of the same shape.

        Raises:
            SettingError: within `randomised`, the batch has another number of images than there are keys.
        """
        if self.rate == 0:
            return inputs
        if self.words is None:
            return functional.dropout(inputs, self.rate, self.training)
        return torch.where(self._kept(inputs, self.words), inputs * (1 / (1 - self.rate)), 0.0)

    def _kept(self, inputs: Tensor, words: Tensor) -> Tensor:
        """Which activations stay, bool [n, ...]: a hash of the image's two words and of the place, and of nothing else.

        A word alone would be too little: of 100,000 keys, two would have the same.
        """
        if len(inputs) != words.shape[1]:
            raise SettingError(
                f"a batch of {len(inputs)} images went through a network that is randomised with {words.shape[1]} "
                "keys; give one key for each image"
            )
        first, second = words.to(inputs.device).view(2, len(inputs), *[1] * (inputs.ndim - 1))
        bits = _mix((self._places(inputs) ^ first) + second)
        return bits >= int(self.rate * 2**32) - 2**31

    def _places(self, inputs: Tensor) -> Tensor:
        """A hash of every position of one image, int32 [...]; kept until images of another shape or device come."""
        shape = inputs.shape[1:]
        kept = self._positions
        if kept is None or kept.shape != shape or kept.device != inputs.device:
            numbers = torch.arange(shape.numel(), dtype=torch.int32, device=inputs.device)
            kept = self._positions = _mix(numbers.mul_(WEYL)).view(shape)
        return kept

    def __getstate__(self) -> dict[str, object]:
        """Copies are ordinary: the keys stay with the layer that `randomised` will restore."""
        return {**self.__dict__, "words": None, "_positions": None}

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate}"


def dropping(rate: float) -> nn.Module:
    """A dropout layer, or for a rate of 0 one that does nothing in its place: later layers keep their numbers."""
    return Dropout(rate) if rate else nn.Identity()


@contextmanager
def randomised(model: nn.Module, keys: Int64[Tensor, "n"]) -> Generator[None]:
    """Every dropout layer drops, in evaluation mode too, and the mask of an image is a function of its key.

    What is dropped depends on the key, on the number of the layer within the model and on the place (channel, row,
    column), and neither on the other images of the batch, nor on their number, the device or any generator. All else
    (batch normalisation) stays in its mode; on leaving, also by an exception, the layers are as they were.

    Args:
        model: the network; one without dropout is left as it is.
        keys: int64 [n], one for each image of every batch that goes through; equal keys give equal masks.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Dropout)]
    before = [layer.words for layer in layers]
    device = next((parameter.device for parameter in model.parameters()), keys.device)
    try:
        for layer, words in zip(layers, _words(keys.to(device), len(layers)), strict=True):
            layer.words = words
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.words = was


def _words(keys: Tensor, layers: int) -> Tensor:
    """Two words for each image in each layer, int32 [layers, 2, n], in which all 64 bits of the key count."""
    low, high = keys.bitwise_and(0xFFFFFFFF), keys >> 32
    numbers = torch.arange(1, layers + 1, dtype=torch.int32, device=keys.device)[:, None] * WEYL
    first = _mix(low.to(torch.int32) ^ _mix(numbers.clone()))
    second = _mix(_mix(high.to(torch.int32) ^ _mix(numbers + 1)) + first)
    return torch.stack([first, second], dim=1)


def _mix(bits: Tensor) -> Tensor:
    """Scramble 32-bit words in place, one to one, so that each bit of the outcome depends on all.

    The integer hash "lowbias32" of C. Wellons, nullprogram.com/blog/2018/07/31. int32 wraps around alike on every
    device; its shift to the right copies the sign, which the masks undo.
    """
    bits ^= (bits >> 16).bitwise_and_(0xFFFF)
    bits *= 0x7FEB352D
    bits ^= (bits >> 15).bitwise_and_(0x1FFFF)
    bits *= 0x846CA68B - 2**32
    bits ^= (bits >> 16).bitwise_and_(0xFFFF)
    return bits
