"""Named random streams.

Randomness is an argument: a `Seed` is a number and a path of names, and every draw comes from a
generator made of both. Two streams with different names are independent, and a stream does not
change when another one is drawn from, added or removed.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b

import torch


@dataclass(frozen=True)
class Seed:
    """A root number and the path of names below it: ``Seed(0) / "collect" / "rows"``."""

    root: int
    names: tuple[str, ...] = ()

    def __truediv__(self, name: str | int) -> Seed:
        """The stream of that name below this one."""
        return Seed(self.root, (*self.names, str(name)))

    def __str__(self) -> str:
        return "/".join((str(self.root), *self.names))

    def integer(self) -> int:
        """A number in [0, 2**63) that stands for this stream and no other."""
        return int.from_bytes(blake2b(str(self).encode(), digest_size=8).digest(), "big") >> 1

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator at the start of this stream.

        Draws that define an experiment (rows, triggers, splits) are made on the CPU, so that they
        do not depend on the device.
        """
        return torch.Generator(device=device).manual_seed(self.integer())

    def permutation(self, n: int) -> torch.Tensor:
        """A random order of 0..n-1, int64 [n]."""
        return torch.randperm(n, generator=self.generator())

    @contextmanager
    def scoped(self) -> Generator[None]:
        """Run code that only knows the global generators (layer initialisation, dropout).

        The global CPU and CUDA streams are set to this seed inside and are restored afterwards.
        """
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.integer())
            yield
