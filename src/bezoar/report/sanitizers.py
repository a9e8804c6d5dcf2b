"""What sanitizers removed of the poison: one table of games whose robustness game has a sanitizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bezoar.records import Estimate
from bezoar.report.groups import MISSHAPEN, Row, group, seeds_cell, unreadable
from bezoar.report.page import Cell, Section, Table

COLUMNS = (
    "game",
    "seeds",
    "ROC AUC of rows",
    "poisoned rows removed",
    "clean rows removed",
    "attack success before",
    "attack success after",
    "clean accuracy after",
)


def has_sanitizer(row: Row) -> bool:
    """Whether a row's game has a sanitizer."""
    return row["game"].get("sanitizer") is not None


def sanitizer_sections(rows: Sequence[Row]) -> list[Section]:
    """One line for each attack and sanitizer, over seeds; nothing without rows.

    Raises:
        StoreError: a row lacks something, e.g. because another version of bezoar wrote it.
    """
    if not rows:
        return []
    lines = [[one.label, len(one.rows), *_line(one.rows)] for one in group(rows, "sanitizer")]
    text = (
        "A sanitizer ranks the rows of the poisoned data by the features of the undefended model; the most suspicious "
        "are removed and a model is trained on the rest. It knows neither the attack nor its rate. ROC AUC is over "
        "rows: how often a poisoned one is ranked above a clean one."
    )
    return [Section("Sanitizers", text, Table(COLUMNS, lines))]


def _line(rows: Sequence[Row]) -> list[Cell]:
    cells: list[Cell] = []
    for part, name in (
        ("sanitized", "auc"),
        ("sanitized", "poisoned_removed"),
        ("sanitized", "clean_removed"),
        ("suspect", "attack_success"),
        ("sanitized", "attack_success"),
        ("sanitized", "clean_accuracy"),
    ):
        found = [estimate for row in rows if (estimate := _estimate(row, part, name)) is not None]
        cells.append(seeds_cell(found, in_percent=name != "auc") if found else "no poison")
    return cells


def _estimate(row: Row, part: str, name: str) -> Estimate | None:
    try:
        value: dict[str, Any] | None = row["result"][part][name]
        return None if value is None else Estimate.from_json(value)
    except MISSHAPEN as error:
        raise unreadable(row, error) from None
