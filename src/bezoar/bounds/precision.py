"""With how many digits a graphics card computes: bounds that hold up to the rounding of float32 need all of them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def whole_floats() -> Generator[None]:
    """Products of float32 numbers are computed in float32, also where torch lets a card round them to TF32.

    For convolutions it does so by default. Ten bits are left of a factor, so that a product is off by a thousandth: a
    bound of such products is no bound. Nothing changes on a CPU.
    """
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
