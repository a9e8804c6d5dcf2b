"""What defenders make of the victims of triggerless poisons: what a repair leaves, and what is told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bezoar.measure.estimates import auc, mean, proportion
from bezoar.records import Estimate
from bezoar.report.groups import Row, kind_of, unreadable
from bezoar.report.page import Cell, Percent, Section, Table
from bezoar.report.transfers import Transferred, transferred

COLUMNS = (
    "attack",
    "victim",
    "defence",
    "success before",
    "left after repair",
    "base rate of that",
    "accuracy lost",
    "detectability: ROC AUC of models",
    "of rows",
)


def examined_sections(rows: Sequence[Row]) -> list[Section]:
    """One line for each attack, victim and defence, its seeds pooled; nothing without such rows.

    Raises:
        StoreError: a row lacks something, e.g. because another version of bezoar wrote it.
    """
    groups: dict[tuple[str, str, str], list[tuple[Transferred, Row]]] = {}
    for row in rows:
        if {"repaired", "inspected"} & set(row.get("result", {})):
            one = transferred([row])[0]
            name = one.attack, f"{one.victim} ({one.box} box), {one.transfer.replace('_', ' ')}", _defence(row["game"])
            groups.setdefault(name, []).append((one, row))
    if not groups:
        return []
    lines = [[*name, *_line(few)] for name, few in groups.items()]
    text = (
        "Robustness beside detectability, as for backdoors. A defender with a few trusted images repairs the victims "
        "of the first targets, to the last reading within the accuracy budget; the attack has survived where the "
        "repaired victim still gives its target the poisons' label. The base rate is that of the victim without "
        "poisons after the same repair. Models are told apart by a detector's score of victims with and without "
        "poisons, pooled over seeds; rows by a sanitizer's."
    )
    return [Section("Triggerless poisons: robustness and detectability", text, Table(COLUMNS, lines))]


def _defence(game: Mapping[str, Any]) -> str:
    players = (game.get(role) for role in ("sanitizer", "repairer", "detector"))
    return ", ".join(kind_of(player).replace("_", " ") for player in players if player)


def _line(few: Sequence[tuple[Transferred, Row]]) -> list[Cell]:
    try:
        results = [row["result"] for _, row in few]
        repaired = [result["repaired"] for result in results if "repaired" in result]
        inspected = [result["inspected"] for result in results if "inspected" in result]
        cells: list[Cell] = ["", "", "", ""]
        if repaired:
            shares = [[one[reading]["attack_success"] for one in repaired] for reading in ("before", "final")]
            base = [one["base_rate"]["final"] for one in repaired]
            lost = mean([one["final"]["lost"]["value"] for one in repaired], "seeds")
            single = Estimate.from_json(repaired[0]["final"]["lost"])
            cells = [*(_pooled(each) for each in (*shares, base)), Percent(single if len(repaired) == 1 else lost)]
        return [*cells, _models(inspected), _rows([one for one, _ in few])]
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(few[0][1], error) from None


def _pooled(shares: Sequence[Mapping[str, Any]]) -> Cell:
    """Shares of targets of several seeds, as one share."""
    found = [Estimate.from_json(one) for one in shares]
    count = sum(one.n for one in found)
    hits = round(sum(one.value * one.n for one in found))
    return Percent(proportion(torch.arange(count) < hits, unit="targets"))


def _models(inspected: Sequence[Mapping[str, Any]]) -> Cell:
    """ROC AUC over the victims of all seeds."""
    if not inspected:
        return ""
    poisoned, clean = ([each["score"] for one in inspected for each in one[name]] for name in ("poisoned", "clean"))
    return auc(poisoned, clean)


def _rows(found: Sequence[Transferred]) -> Cell:
    """A sanitizer's ROC AUC over rows."""
    known = [one.sanitized["auc"] for one in found if one.sanitized]
    if not known:
        return ""
    return known[0] if len(known) == 1 else mean([one.value for one in known], "seeds")
