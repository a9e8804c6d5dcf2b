"""The page of the owner of scraped data: the most suspicious rows with their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bezoar.records import Dataset, Estimate
from bezoar.report.page import Cell, Percent, Picture, Section, Table, Tone, number, write_page
from bezoar.report.tiles import ranked
from bezoar.report.words import glossary, intervals
from bezoar.screening import Screening, Verdict

SHOWN = 40
"""Pictures on the page; the manifest has all rows."""

_TONES: dict[Verdict, Tone] = {"suspicious": "bad", "nothing found": "good", "open": "open"}

_MEANS: dict[Verdict, str] = {
    "suspicious": (
        "Something in these data is unlike the trusted pictures. That may be poison, wrong labels, or trusted pictures "
        "that are from elsewhere: look at the pictures below before you remove any."
    ),
    "nothing found": (
        "That is no proof that the data are clean: few poisons among many rows, or poisons of a kind that this method "
        "does not see, are not found."
    ),
    "open": (
        "Some row is always the most suspicious. With trusted pictures of the same source it can be tested whether the "
        "named rows are worse than clean ones."
    ),
}


def screen_page(
    path: Path,
    found: Screening,
    data: Dataset,
    *,
    name: str,
    method: str,
    accuracy: Estimate,
    provenance: Mapping[str, Any],
) -> None:
    """The page of `bezoar screen`: verdict, the most suspicious rows, and how many of each class were named.

    Args:
        path: the HTML file.
        found: what was found.
        data: the rows that were screened.
        name: of the data.
        method: the sanitizer and its settings.
        accuracy: of the model on the rows that it learnt from.
        provenance: what the numbers depend on besides the settings.

    Raises:
        StoreError: the page cannot be written.
    """
    shown = found.order[:SHOWN]
    titles = [data.classes[int(label)] for label in data.labels[shown]]
    below = [f"row {int(row)}: {number(float(found.scores[row]))}" for row in shown]
    verdicts: dict[Verdict, str] = {
        "suspicious": f"Some rows of {name} look poisoned or mislabelled",
        "nothing found": f"Nothing suspicious was found in {name}",
        "open": f"The rows of {name} are ranked; whether any is poisoned is open",
    }
    write_page(
        path,
        title=f"bezoar screen of {name}",
        verdict=verdicts[found.verdict],
        tone=_TONES[found.verdict],
        summary=f"{found.reason[:1].upper()}{found.reason[1:]}.\n\n{_MEANS[found.verdict]}",
        sections=[
            Section(
                "The most suspicious rows",
                f"Ranked by {method}. All rows are in manifest.csv.",
                figures=[Picture(ranked(data.batch(shown), titles, below), "The label above, row and score below.")],
            ),
            _per_class(found, data),
            Section(
                "What is this based on?",
                "The rows are ranked by what a model makes of them. If it has not learnt them, that says little.",
                Table(("measured on the rows themselves", "value"), [("accuracy of the model", Percent(accuracy))]),
            ),
            glossary("data poisoning", "trusted pictures"),
            intervals("a share of pictures or models"),
        ],
        provenance=provenance,
    )


def _per_class(found: Screening, data: Dataset) -> Section:
    """A poison aims at one class, so the named rows of a poisoned one are many."""
    count = len(data.classes)
    rows, named = (part.bincount(minlength=count) for part in (data.labels, data.labels[found.removed]))
    order = (named / rows.clamp_min(1)).argsort(descending=True, stable=True)
    lines: list[list[Cell]] = [
        [data.classes[label], int(rows[label]), int(named[label]), _highest(found.scores, data.labels == label)]
        for label in order.tolist()
    ]
    text = "Scores are comparable across classes, so a class with many of the named rows is itself worth a look."
    return Section("Class by class", text, Table(("class", "rows", "named", "highest score"), lines))


def _highest(scores: torch.Tensor, inside: torch.Tensor) -> Cell:
    return float(scores[inside].max()) if bool(inside.any()) else ""
