"""What the owner of scraped data asks: which rows are suspicious, and whether there is anything to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from bezoar.errors import DataError
from bezoar.games.sanitizing import most_suspicious, ranking
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.owner import ALPHA
from bezoar.records import Dataset, Rows
from bezoar.roles import Sanitizer
from bezoar.seed import Seed

Verdict = Literal["suspicious", "nothing found", "open"]


@dataclass(frozen=True)
class Calibration:
    """What trusted rows among the data say of the rows that were named.

    Attributes:
        trusted: how many trusted rows there are.
        named: how many of them are among the most suspicious rows.
        expected: how many would be, if they were named as often as the other rows of their classes.
        p_value: how often so few or fewer would be, if they were; exact.
        smallest: the p-value if none had been named: what could be shown at all.
    """

    trusted: int
    named: int
    expected: float
    p_value: float
    smallest: float


@dataclass(frozen=True)
class Screening:
    """The answer to "which rows are suspicious?".

    Attributes:
        scores: float [n], higher is more suspicious; the sanitizer's own.
        order: int64 [n], the rows from the most suspicious on.
        removed: bool [n], the rows that were named.
        calibration: what trusted rows say of that; None without them.
    """

    scores: Float[Tensor, "n"]
    order: Int64[Tensor, "n"]
    removed: Bool[Tensor, "n"]
    calibration: Calibration | None

    @property
    def verdict(self) -> Verdict:
        """Whether the rows that were named are more suspicious than trusted ones are."""
        if self.calibration is None or self.calibration.smallest >= ALPHA:
            return "open"
        return "suspicious" if self.calibration.p_value < ALPHA else "nothing found"

    @property
    def reason(self) -> str:
        """The verdict in one sentence."""
        seen = self.calibration
        if seen is None:
            return "rows are ranked, but without trusted images nothing says how suspicious is too suspicious"
        if seen.smallest >= ALPHA:
            return f"{seen.trusted} trusted images among so many rows are too few to compare with"
        among = f"of {seen.trusted} trusted rows {seen.named} are among them, {seen.expected:.1f} by chance"
        if self.verdict == "suspicious":
            return f"trusted rows are rare among the most suspicious: {among} (p = {seen.p_value:.2g})"
        return f"trusted rows are not rarer among the most suspicious: {among} (p = {seen.p_value:.2g})"

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the rows."""
        seen = self.calibration
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "rows": len(self.scores),
            "removed": int(self.removed.sum()),
            "p_value": None if seen is None else seen.p_value,
            "trusted": None
            if seen is None
            else {"rows": seen.trusted, "among_the_most_suspicious": seen.named, "expected": seen.expected},
        }


def screen(
    victim: Classifier,
    data: Dataset,
    trusted: Dataset | None,
    sanitizer: Sanitizer,
    lab: Lab,
    seed: Seed,
    *,
    removed: float = 0.05,
) -> Screening:
    """Rank all rows, and name the most suspicious share of them.

    Trusted rows are ranked among the others and never named. If the named rows are no worse than clean data, trusted
    rows are as frequent among them, class by class: the exact test of that is the verdict. It holds if the trusted
    rows are like the clean rows of their classes, to `victim` too, which should have been trained on both; to a model
    that has never seen them they look worse than they are, and the test errs on the side of silence.

    Raises:
        SettingError: `removed` names no row, or all.
        DataError: the trusted rows are of other classes or another shape.
    """
    pooled = data if trusted is None else joined(data, trusted)
    seed = seed / "screen"
    scores = sanitizer.suspicion(victim, pooled, lab, seed / "sanitize")
    order = ranking(scores, seed / "ties")
    named = torch.zeros(len(pooled), dtype=torch.bool)
    named[most_suspicious(scores, removed, seed / "ties")] = True
    calibration = None if trusted is None else calibrate(named, len(data), pooled.labels)
    return Screening(scores[: len(data)], order[order < len(data)], named[: len(data)], calibration)


def calibrate(named: Bool[Tensor, "n"], untrusted: int, labels: Int64[Tensor, "n"]) -> Calibration:
    """Whether trusted rows are rarer among the named ones than chance has it, given how many of each class are.

    Under the null each class's trusted rows among its named ones are hypergeometric; their sum is the statistic.

    Args:
        named: of all rows, the trusted ones last.
        untrusted: where the trusted ones begin.
        labels: of all rows.
    """
    trusted = torch.arange(len(labels)) >= untrusted
    chances: NDArray[np.float64] = np.ones(1)
    expected = 0.0
    for label in labels.unique():
        inside = labels == label
        rows, known, drawn = (int(part.sum()) for part in (inside, inside & trusted, inside & named))
        chances = np.convolve(chances, stats.hypergeom.pmf(np.arange(min(known, drawn) + 1), rows, known, drawn))
        expected += known * drawn / rows
    seen = int((named & trusted).sum())
    p_value, smallest = min(1.0, float(chances[: seen + 1].sum())), min(1.0, float(chances[0]))
    return Calibration(int(trusted.sum()), seen, expected, p_value, smallest)


def joined(first: Dataset, second: Dataset) -> Dataset:
    """The rows of two data sets of the same classes, those of the first before those of the second.

    Raises:
        DataError: their classes or shapes differ.
    """
    if first.classes != second.classes or first.shape != second.shape:
        raise DataError(
            f"data of {len(first.classes)} classes and shape {first.shape} cannot be joined with data of "
            f"{len(second.classes)} classes and shape {second.shape}"
        )

    def read(rows: Rows) -> Tensor:
        later = rows >= len(first)
        images = torch.empty((len(rows), *first.shape), dtype=torch.uint8)
        images[~later] = first.batch(rows[~later])
        images[later] = second.batch(rows[later] - len(first))
        return images

    return Dataset(torch.cat([first.labels, second.labels]), first.classes, first.shape, read)
