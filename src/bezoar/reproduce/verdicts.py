"""What a reproduction says: of single numbers, and of the claims that the paper makes about their order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bezoar.records import Estimate

Agreement = Literal["agrees", "differs", "not comparable at this preset", "not measured"]
Standing = Literal["holds", "does not hold", "undecided", "not measured"]


@dataclass(frozen=True)
class Compared:
    """One printed number beside the measured one.

    Attributes:
        what: which number it is.
        printed: in the paper.
        measured: by us; None if it has not been.
        tolerance: how far off the printed number may be by chance, absolute: it has no interval of its own.
        comparable: whether the preset is the paper's setting, or near enough for values to mean the same.
    """

    what: str
    printed: float
    measured: Estimate | None
    tolerance: float
    comparable: bool

    @property
    def difference(self) -> float | None:
        """Measured minus printed."""
        return None if self.measured is None else self.measured.value - self.printed

    @property
    def uncertainty(self) -> float | None:
        """Of the difference: our interval's longer half and the paper's tolerance, added as independent errors."""
        if self.measured is None:
            return None
        half = max(self.measured.high - self.measured.value, self.measured.value - self.measured.low)
        return math.hypot(half, self.tolerance)

    @property
    def verdict(self) -> Agreement:
        """Whether the two agree within their joint uncertainty."""
        if self.difference is None or self.uncertainty is None:
            return "not measured"
        if not self.comparable:
            return "not comparable at this preset"
        return "agrees" if abs(self.difference) <= self.uncertainty else "differs"


@dataclass(frozen=True)
class Claim:
    """A statement of the paper about an order, and whether it holds here.

    Attributes:
        text: the statement.
        standing: what the measured numbers say of it.
        because: those numbers.
    """

    text: str
    standing: Standing
    because: str


def judged(text: str, differences: Sequence[tuple[str, Estimate]]) -> Claim:
    """A claim that some differences are above zero.

    It holds where the intervals of all lie above zero, fails where one lies below, and is undecided otherwise.

    Args:
        text: the statement.
        differences: what each is of, and the difference with its interval.
    """
    if not differences:
        return Claim(text, "not measured", "")
    because = "; ".join(f"{what}: {_signed(one)}" for what, one in differences)
    if any(one.high < 0 for _, one in differences):
        return Claim(text, "does not hold", because)
    return Claim(text, "holds" if all(one.low > 0 for _, one in differences) else "undecided", because)


def counted(text: str, cases: Sequence[tuple[str, bool]]) -> Claim:
    """A claim about several single comparisons without intervals: it holds in all, in none, or is undecided."""
    if not cases:
        return Claim(text, "not measured", "")
    right = [what for what, so in cases if so]
    because = f"in {len(right)} of {len(cases)}" + (f": {', '.join(right)}" if 0 < len(right) < len(cases) else "")
    standing: Standing = "holds" if len(right) == len(cases) else "undecided" if right else "does not hold"
    return Claim(text, standing, because)


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"
