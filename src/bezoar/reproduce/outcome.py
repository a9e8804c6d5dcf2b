"""What a table or figure of the paper became here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bezoar.report.page import MINUS, Section, Table
from bezoar.reproduce.verdicts import Claim, Compared


@dataclass(frozen=True)
class Outcome:
    """One reproduced table or figure.

    Attributes:
        sections: it, in the paper's layout.
        compared: its printed numbers beside ours.
        claims: what the paper says of it, judged.
    """

    sections: Sequence[Section]
    compared: Sequence[Compared]
    claims: Sequence[Claim]

    @property
    def summary(self) -> str:
        """The verdicts counted, in one sentence."""
        said = [one.standing for one in self.claims]
        cells = [one.verdict for one in self.compared]
        parts = [f"{said.count(kind)} {kind}" for kind in dict.fromkeys(said)]
        numbers = [f"{cells.count(kind)} {kind}" for kind in dict.fromkeys(cells)]
        return f"Claims: {', '.join(parts) or 'none'}. Printed numbers: {', '.join(numbers) or 'none'}."

    def judged(self) -> list[Section]:
        """The verdicts as sections of a page."""
        claims = Table(
            ("the paper says", "here it", "measured"),
            [
                [one.text, "is not measured" if one.standing == "not measured" else one.standing, one.because]
                for one in self.claims
            ],
        )
        cells = Table(
            ("number", "printed", "measured", "difference", "joint uncertainty", "verdict"),
            [
                [
                    one.what,
                    f"{one.printed:.2f}",
                    "" if one.measured is None else one.measured,
                    "" if one.difference is None else f"{one.difference:+.2f}".replace("-", MINUS),
                    "" if one.uncertainty is None else f"{one.uncertainty:.2f}",
                    one.verdict,
                ]
                for one in self.compared
            ],
        )
        text = (
            "A difference agrees where it is within the joint uncertainty: our 95 % interval and the tolerance of the "
            "printed number, which has no interval of its own, as independent errors."
        )
        sections = [Section("What the paper says, and what holds here", table=claims)] if self.claims else []
        return [*sections, *([Section("Printed and measured", text, cells)] if self.compared else [])]

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the figures."""
        return {
            "summary": self.summary,
            "claims": [vars(one) for one in self.claims],
            "compared": [
                {
                    "what": one.what,
                    "printed": one.printed,
                    "measured": None if one.measured is None else one.measured.as_json(),
                    "difference": one.difference,
                    "uncertainty": one.uncertainty,
                    "verdict": one.verdict,
                }
                for one in self.compared
            ],
        }
