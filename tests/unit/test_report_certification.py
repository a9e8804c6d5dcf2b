"""Tables of certification, against numbers that are worked out by hand from the committed rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bezoar.measure.monitoring import average_run_length, chart
from bezoar.records import Estimate
from bezoar.report.certificates import certified
from bezoar.report.certification import certification_sections
from bezoar.report.groups import joined
from bezoar.report.page import Percent, Section
from bezoar.report.refusals import FALSE_ALARM, FOLD

ROWS = Path(__file__).parents[2] / "results" / "certification" / "cpu"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text().splitlines()]


def section(found: list[Section], title: str) -> dict[str, dict[str, Any]]:
    """A table's lines by their first cell, each a column -> cell."""
    (one,) = [each for each in found if each.title.startswith(title)]
    assert one.table is not None
    return {str(line[0]): dict(zip(one.table.columns, line, strict=True)) for line in one.table.rows}


def rate(row: dict[str, Any], who: str, where: str) -> float:
    return float(row["result"][who][where]["certified"]["value"])


def test_a_defence_is_measured_against_the_game_without_it():
    played = rows("defences_bounds")
    table = section(certification_sections(played), "Defences of certificates")
    (bare,) = [row for row in played if _bare(row)]
    for name, kind in (("spectral signatures", "sanitizer"), ("masking", "certifier")):
        (row,) = [
            each for each in played if str((each["game"][kind] or {}).get("kind", "")).startswith(name.split()[0])
        ]
        line = table[name]
        back, up = line["given back, stamped"], line["given up, clean"]
        assert isinstance(back, Percent)
        assert isinstance(up, Percent)
        assert back.estimate.value == pytest.approx(rate(row, "suspect", "stamped") - rate(bare, "suspect", "stamped"))
        assert up.estimate.value == pytest.approx(rate(bare, "suspect", "clean") - rate(row, "suspect", "clean"))
        assert back.estimate.low < back.estimate.value < back.estimate.high
    assert table["strip (form confident)"]["given back, stamped"] == "nothing"


def _kind(player: dict[str, Any] | None) -> str:
    return "" if player is None else str(player["kind"])


def _bare(row: dict[str, Any]) -> bool:
    game = row["game"]
    return not any(game[role] for role in ("sanitizer", "repairer", "guard")) and "certifier" not in game["certifier"]


def test_a_twin_with_few_certificates_leaves_nothing_to_measure():
    table = section(certification_sections(rows("digits_bounds_deep")), "Certificates under attack")
    assert table["certifier ladder 130 (size 4)"]["certificates lost"] == "not measurable"
    assert isinstance(table["certifier ladder 130"]["certificates lost"], Percent)


def test_attacks_of_one_kind_are_told_apart_by_what_differs():
    names = [one.attack for one in certified(rows("digits_bounds"))]
    assert len(set(names)) == len(names)
    assert {"certifier ladder 130 (relabel target)", "certifier ladder 130 (relabel next)"} <= set(names)


def test_seeds_that_agree_to_the_last_image_do_not_make_a_number_certain():
    same = [Estimate(0.036, 0.019, 0.067, 250, "images")] * 3
    assert (joined(same).low, joined(same).high) == (pytest.approx(0.019), pytest.approx(0.067))
    assert joined(same[:1]) == same[0]


def test_a_change_over_seeds_may_reach_below_zero():
    few = [Estimate(value, value - 0.01, value + 0.01, 250, "images") for value in (0.05, 0.3, 0.1)]
    assert joined(few, signed=True).low < 0
    assert joined(few).low == 0


def test_queries_until_the_alarm_are_exact_run_lengths():
    """Second route: the chart and its run length for the rates of the row itself."""
    table = section(certification_sections(rows("defences_smoothing")), "How soon refusals")
    (line,) = table.values()
    clean, stamped = line["refused: clean"].estimate, line["refused: stamped"].estimate
    made = chart(clean.high, min(0.99, FOLD * clean.high), float(FALSE_ALARM))
    assert average_run_length(clean.high, made) >= FALSE_ALARM
    wanted = average_run_length(stamped.value, made)
    assert float(str(line["100% stamped"]).split()[0]) == pytest.approx(wanted, rel=0.06)
