"""With how many digits bounds are computed on a graphics card, as far as it can be seen without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from bezoar.bounds import margins as module
from bezoar.bounds.margins import margins
from bezoar.bounds.precision import whole_floats
from bezoar.testing import toy


def rounding() -> tuple[object, object]:
    """Whether convolutions and matrix products may be rounded to TF32."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def rounded() -> Iterator[None]:
    """Both may be, while the test runs."""
    before = rounding()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_nothing_is_rounded_inside_and_all_is_as_before_afterwards() -> None:
    def fail() -> None:
        with whole_floats():
            assert rounding() == (False, False)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert rounding() == (True, True)


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_bounds_are_computed_with_whole_floats(method: module.Method, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, object]] = []
    read = module.read
    monkeypatch.setattr(module, "read", lambda *given, **named: seen.append(rounding()) or read(*given, **named))
    margins(toy.robust(), toy.photographs(), torch.zeros(6, dtype=torch.int64), 0.1, method=method)
    assert seen == [(False, False)]
    assert rounding() == (True, True)
