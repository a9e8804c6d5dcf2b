"""The layers that bounds are propagated through, each as the little that bounds need to know of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

Pair = tuple[int, int]
"""Rows and columns."""

FEW = 8
"""Convolutions from fewer channels are transposed by interleaving where their kernels and strides allow it."""


class Layer(ABC):
    """One operation on a batch: values [n, *inputs] -> [n, *outputs]."""

    @abstractmethod
    def apply(self, values: Tensor) -> Tensor:
        """What the layer makes of values."""


class Affine(Layer):
    """``W x + b``: known by what W, |W|, W squared entry by entry, and W transposed do."""

    diagonal: ClassVar[bool] = False
    """Whether every output rests on one input: such a layer makes a ball an ellipsoid along the axes."""

    @abstractmethod
    def spread(self, sizes: Tensor, power: int) -> Tensor:
        """``|W|^power sizes``, without b: for 1 how far intervals reach, for 2 the squares of the reach of a ball."""

    @abstractmethod
    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """``W' a`` for coefficients a [m, *outputs]: [m, *shape], where `shape` is that of the inputs."""

    @abstractmethod
    def offset(self, coefficients: Tensor) -> Tensor | None:
        """``a b`` for coefficients a [m, *outputs]: [m]; None if b is zero."""


@dataclass(frozen=True, eq=False)
class Scale(Affine):
    """A factor [c] and a shift [c] for each channel: normalisation, or batch normalisation by running statistics."""

    diagonal: ClassVar[bool] = True

    factor: Tensor
    shift: Tensor

    def apply(self, values: Tensor) -> Tensor:
        """Scaled and shifted."""
        return values * self.factor[:, None, None] + self.shift[:, None, None]

    def spread(self, sizes: Tensor, power: int) -> Tensor:
        """Scaled."""
        return sizes * self.factor.abs().pow(power)[:, None, None]

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """Scaled."""
        del shape
        return coefficients * self.factor[:, None, None]

    def offset(self, coefficients: Tensor) -> Tensor | None:
        """What the shift adds."""
        return coefficients.sum((2, 3)) @ self.shift


@dataclass(frozen=True, eq=False)
class Convolution(Affine):
    """A convolution with zero padding."""

    weight: Tensor
    bias: Tensor | None
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def apply(self, values: Tensor) -> Tensor:
        """Convolved."""
        return functional.conv2d(values, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def spread(self, sizes: Tensor, power: int) -> Tensor:
        """Convolved with the absolute weights or their squares."""
        weight = self.weight.abs().pow(power)
        return functional.conv2d(sizes, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """The transposed convolution; input rows and columns that a stride skips at the end get zeros."""
        kernel = self.weight.shape[2:]
        coefficients = coefficients.contiguous(memory_format=torch.channels_last)
        if tuple(kernel) == (1, 1) and self.stride != (1, 1) and self.padding == (0, 0):
            # by hand: torch's own writes past its buffer on some CPUs where channels are few (oneDNN issue 6035)
            reached = coefficients.new_zeros(len(coefficients), *shape)
            reached[:, :, :: self.stride[0], :: self.stride[1]] = functional.conv_transpose2d(
                coefficients, self.weight, groups=self.groups
            )
            return reached
        if self._interleaves():
            return self._interleaved(coefficients, shape)
        reach = [
            (coefficients.shape[2 + i] - 1) * self.stride[i]
            - 2 * self.padding[i]
            + self.dilation[i] * (kernel[i] - 1)
            + 1
            for i in (0, 1)
        ]
        missing = [shape[1 + i] - reach[i] for i in (0, 1)]
        return functional.conv_transpose2d(
            coefficients, self.weight, None, self.stride, self.padding, missing, self.groups, self.dilation
        )

    def _interleaves(self) -> bool:
        """Whether the transpose to few channels (an image's) can be had from one small convolution without stride."""
        side, kernel = self.stride[0], self.weight.shape[2:]
        fits = side == self.stride[1] > 1 and not any(length % side for length in kernel)
        return fits and self.dilation == (1, 1) and self.groups == 1 and self.weight.shape[1] < FEW

    def _interleaved(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """Rows and columns of each remainder by the stride are channels of their own, which are then interleaved.

        For three channels it takes about half as long as torch's transposed convolution on a CPU.
        """
        side, (outputs, inputs, height, width) = self.stride[0], self.weight.shape
        down, along = height // side, width // side
        parts = self.weight.view(outputs, inputs, down, side, along, side).permute(1, 3, 5, 0, 2, 4)
        kernel = parts.reshape(inputs * side * side, outputs, down, along).flip(2, 3)
        whole = functional.pixel_shuffle(functional.conv2d(coefficients, kernel, padding=(down - 1, along - 1)), side)
        top, left = self.padding
        inside = whole[:, :, top : top + shape[1], left : left + shape[2]]
        return functional.pad(inside, (0, shape[2] - inside.shape[3], 0, shape[1] - inside.shape[2]))

    def offset(self, coefficients: Tensor) -> Tensor | None:
        """What the bias adds."""
        return None if self.bias is None else coefficients.sum((2, 3)) @ self.bias


@dataclass(frozen=True, eq=False)
class Dense(Affine):
    """A linear layer on vectors: weight [o, d]."""

    weight: Tensor
    bias: Tensor | None

    def apply(self, values: Tensor) -> Tensor:
        """Multiplied and shifted."""
        return functional.linear(values, self.weight, self.bias)

    def spread(self, sizes: Tensor, power: int) -> Tensor:
        """Multiplied by the absolute weights or their squares."""
        return functional.linear(sizes, self.weight.abs().pow(power))

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """Multiplied by the transposed weights."""
        del shape
        return coefficients @ self.weight

    def offset(self, coefficients: Tensor) -> Tensor | None:
        """What the bias adds."""
        return None if self.bias is None else coefficients @ self.bias


@dataclass(frozen=True, eq=False)
class Pooling(Affine):
    """Sums over windows, divided by the same number everywhere: average pooling."""

    kernel: Pair
    stride: Pair
    padding: Pair
    divisor: int

    def apply(self, values: Tensor) -> Tensor:
        """Averaged."""
        return functional.avg_pool2d(values, self.kernel, self.stride, self.padding, divisor_override=self.divisor)

    def spread(self, sizes: Tensor, power: int) -> Tensor:
        """Averaged: the weights are positive and all alike."""
        return self.apply(sizes) / self.divisor ** (power - 1)

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """Every window's share handed back to it."""
        shares = coefficients / self.divisor
        if self.stride == self.kernel and self.padding == (0, 0):
            spread = shares.repeat_interleave(self.kernel[0], 2).repeat_interleave(self.kernel[1], 3)
            return functional.pad(spread, (0, shape[2] - spread.shape[3], 0, shape[1] - spread.shape[2]))
        ones = coefficients.new_ones(1, 1, *self.kernel)
        sums = Convolution(ones, None, self.stride, self.padding, (1, 1), 1)
        single = torch.Size((1, *shape[1:]))
        return sums.transpose(shares.flatten(0, 1)[:, None], single).reshape(len(coefficients), *shape)

    def offset(self, coefficients: Tensor) -> Tensor | None:
        """Nothing is added."""
        del coefficients


@dataclass(frozen=True, eq=False)
class Reshape(Affine):
    """The same numbers in another shape: flattening and its inverse."""

    diagonal: ClassVar[bool] = True

    shape: torch.Size

    def apply(self, values: Tensor) -> Tensor:
        """Reshaped."""
        return values.reshape(len(values), *self.shape)

    def spread(self, sizes: Tensor, power: int) -> Tensor:
        """Reshaped."""
        del power
        return self.apply(sizes)

    def transpose(self, coefficients: Tensor, shape: torch.Size) -> Tensor:
        """Reshaped back."""
        return coefficients.reshape(len(coefficients), *shape)

    def offset(self, coefficients: Tensor) -> Tensor | None:
        """Nothing is added."""
        del coefficients


class Rectifier(Layer):
    """``max(x, 0)``."""

    def apply(self, values: Tensor) -> Tensor:
        """Rectified."""
        return values.relu()


@dataclass(frozen=True, eq=False)
class Maximum(Layer):
    """The largest of a window: only intervals go through it."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil_mode: bool

    def apply(self, values: Tensor) -> Tensor:
        """The maxima."""
        return functional.max_pool2d(
            values, self.kernel, self.stride, self.padding, self.dilation, ceil_mode=self.ceil_mode
        )


class Sum(Layer):
    """Where two branches meet; `apply` takes both, one behind the other."""

    def apply(self, values: Tensor) -> Tensor:
        """The sum of both halves of the batch."""
        first, second = values.chunk(2)
        return first + second
