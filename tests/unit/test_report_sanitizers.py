"""The table of sanitizers: one line for each, with an interval, and apart from undefended models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bezoar.cli.scoreboard import headline, title
from bezoar.errors import StoreError
from bezoar.measure.estimates import proportion
from bezoar.records import Estimate
from bezoar.report.page import Percent
from bezoar.report.results import results_page
from bezoar.report.sanitizers import sanitizer_sections


def share(hits: int) -> dict[str, Any]:
    return proportion(torch.arange(50) < hits, unit="rows").as_json()


def row(seed: int, kind: str = "deep_knn", *, poisoned: bool = True) -> dict[str, Any]:
    game = {
        "kind": "robustness@1",
        "data": {"kind": "digits_in_the_wild@1"},
        "attack": {"kind": "badnets@1", "poisons": 30, "target": 0},
        "sanitizer": {"kind": f"{kind}@1"},
        "removed": 0.05,
        "repairer": None,
        "seed": seed,
    }
    reading = {"clean_accuracy": share(40), "attack_success": share(2 + seed)}
    told = (
        {"auc": share(45 + seed), "poisoned_removed": share(30)}
        if poisoned
        else dict.fromkeys(("auc", "poisoned_removed"))
    )
    result = {
        "suspect": {"clean_accuracy": share(41), "attack_success": share(49)},
        "twin": {"clean_accuracy": share(42), "attack_success": share(1)},
        "sanitized": {"rows": 1000, "removed": 50, **told, "clean_removed": share(1), **reading},
    }
    return {"address": f"{seed}{kind}" + "0" * 24, "game": game, "result": result, "seconds": 1.0, "provenance": {}}


def cells(*rows: dict[str, Any]) -> list[list[Any]]:
    (section,) = sanitizer_sections(rows)
    assert section.table is not None
    return [list(line) for line in section.table.rows]


def test_a_single_seed_keeps_its_own_intervals():
    (line,) = cells(row(0))
    assert line[1:3] == [1, Estimate.from_json(share(45))]
    assert line[3] == Percent(Estimate.from_json(share(30)))
    assert line[5:7] == [Percent(Estimate.from_json(share(49))), Percent(Estimate.from_json(share(2)))]


def test_seeds_of_one_sanitizer_share_a_line_and_sanitizers_do_not():
    lines = cells(row(0), row(1), row(2), row(0, "spectral_signatures"))
    assert [line[1] for line in lines] == [3, 1]
    assert lines[0][2].value == pytest.approx((45 + 46 + 47) / 150)
    assert lines[0][2].unit == "seeds"
    assert cells(row(0), row(1))[0][6] == "4.0\N{NO-BREAK SPACE}% and 6.0\N{NO-BREAK SPACE}%"


def test_where_there_is_no_poison_the_table_says_so():
    assert cells(row(0, poisoned=False))[0][2:4] == ["no poison", "no poison"]


def test_a_row_that_lacks_a_number_is_refused_by_name():
    broken = row(0)
    del broken["result"]["sanitized"]["auc"]
    with pytest.raises(StoreError):
        sanitizer_sections([broken])


def test_a_defended_game_is_not_drawn_among_undefended_ones(tmp_path: Path):
    results_page(tmp_path / "report.html", [row(0)])
    text = (tmp_path / "report.html").read_text()
    assert "ROC AUC of rows" in text
    assert "Attacks on undefended models" not in text


def test_a_sweep_names_the_sanitizer_and_what_it_left():
    one = row(0)
    assert title(one["game"]) == "robustness, badnets 30, deep_knn, seed 0"
    assert headline(one) == "attack success 0.98, 0.04 on the rows that are left"
