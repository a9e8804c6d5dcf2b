"""Robustness against detectability: which rows belong together, and who is on the front."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from bezoar.errors import StoreError
from bezoar.records import Estimate
from bezoar.report.places import Place, area_at, front, guessed_right, planes
from bezoar.report.plane import plane, plane_sections

COMMON = {
    "data": {"kind": "cifar10@1"},
    "architecture": {"kind": "resnet18@1"},
    "trainer": {"kind": "sgd@1", "epochs": 5},
    "trusted": 500,
    "trusted_source": "train",
}


def share(value: float, n: int = 100) -> dict[str, Any]:
    return Estimate(value, max(0.0, value - 0.1), min(1.0, value + 0.1), n, "images").as_json()


def robust(attack: dict[str, Any], left: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    point = {"step": 10, "clean_accuracy": share(0.9), "attack_success": share(left), "lost": share(0.01)}
    start = {**point, "step": 0, "attack_success": share(0.95)}
    return {
        "address": "a" * 32,
        "game": {
            "kind": "robustness@1",
            "attack": attack,
            "seed": seed,
            "budget": 0.02,
            **COMMON,
            "repairer": {"kind": "pivotal_tuning@1"},
            **changes,
        },
        "result": {
            "suspect": {"attack_success": share(0.95), "clean_accuracy": share(0.92)},
            "twin": {"attack_success": share(0.01), "clean_accuracy": share(0.92)},
            "repaired": dict.fromkeys(("oracle", "final", "blind"), point),
            "curve": [start, point],
        },
    }


def detected(attack: dict[str, Any], area: float, models: int = 10, **changes: Any) -> dict[str, Any]:
    poisoned = [{"p_value": 0.01 if number < 8 else 0.5} for number in range(models)]
    clean = [{"p_value": 0.01 if number < 1 else 0.5} for number in range(models)]
    return {
        "address": "b" * 32,
        "game": {
            "kind": "detectability@1",
            "attack": attack,
            "seed": 0,
            **COMMON,
            "detector": {"kind": "cascade@1"},
            **changes,
        },
        "result": {"auc": share(area, 2 * models), "poisoned": poisoned, "clean": clean},
    }


def badnets(poisons: int) -> dict[str, Any]:
    return {"kind": "badnets@1", "poisons": poisons}


CODE = {"kind": "parameter_controlled@2", "fraction": 0.1}


def place(left: float, area: float, *, dose: float = 1.0, success: float = 0.9, code: bool = False) -> Place:
    one = Estimate(left, left, left, 1, "seeds")
    readings = dict.fromkeys(("oracle", "final", "blind"), one)
    seen = Estimate(area, area, area, 20, "models")
    seeds = {key: [one] for key in ("oracle", "final", "blind")}
    undefended = Estimate(success, 0.0, 1.0, 1, "images")
    return Place("badnets", dose, 500, code, undefended, readings, seeds, readings, seen, seen)


def test_rows_of_both_games_are_joined_where_all_common_settings_agree() -> None:
    rows = [
        robust(badnets(50), 0.4, 0),
        robust(badnets(50), 0.6, 1),
        robust(badnets(300), 0.9),
        robust(badnets(100), 0.9),  # nobody looked for it
        detected(badnets(50), 0.7),
        detected(badnets(300), 0.99),
        detected(badnets(500), 1.0),  # nobody repaired it
    ]
    (found,) = planes(rows)
    assert found.title == "pivotal tuning and cascade"
    few = found.places
    assert [one.dose for one in few] == [50, 300]
    assert few[0].left["blind"].value == pytest.approx(0.5)
    assert few[0].repaired["blind"].value == pytest.approx(0.9 - 0.5)
    assert few[1].left["blind"] == Estimate.from_json(share(0.9))  # one seed keeps its own interval
    assert (few[0].area.value, few[1].area.value) == (0.7, 0.99)


def test_rows_of_another_recipe_or_without_a_repair_are_not_joined() -> None:
    other = {"trainer": {"kind": "sgd@1", "epochs": 6}}
    assert not planes([robust(badnets(50), 0.4), detected(badnets(50), 0.7, **other)])
    assert not planes([robust(badnets(50), 0.4, repairer=None), detected(badnets(50), 0.7)])


def test_of_several_populations_the_largest_counts() -> None:
    rows = [robust(badnets(50), 0.4), detected(badnets(50), 0.9, 40), detected(badnets(50), 0.7, 10)]
    (found,) = planes(rows)
    assert [one.area.value for one in found.places] == [0.9]


def test_other_settings_of_a_player_or_another_victim_make_another_plane() -> None:
    """Otherwise two repairs of one seed would count as two seeds, and two data sets share a front."""
    longer = {"repairer": {"kind": "pivotal_tuning@1", "steps": 99}}
    elsewhere = {"data": {"kind": "folder@1"}}
    rows = [robust(badnets(50), 0.4), robust(badnets(50), 0.1, **longer), robust(badnets(50), 0.2, **elsewhere)]
    rows += [detected(badnets(50), 0.7), detected(badnets(50), 0.8, **elsewhere)]
    found = planes(rows)
    assert [[one.left["blind"].value for one in each.places] for each in found] == [[0.4], [0.1], [0.2]]
    assert len({each.title for each in found}) == 3
    assert "data.kind folder@1" in found[2].title


def test_an_attack_with_another_target_is_another_attack_and_not_another_strength() -> None:
    attacks = [badnets(50), {**badnets(50), "target": 3}]
    rows = [robust(each, 0.4) for each in attacks] + [detected(each, 0.7) for each in attacks]
    (found,) = planes(rows)
    assert [one.attack for one in found.places] == ["badnets", "badnets, target 3"]


def test_the_threat_model_is_the_attack_s_own() -> None:
    rows = [robust(each, 0.4) for each in (badnets(50), CODE)] + [detected(each, 0.7) for each in (badnets(50), CODE)]
    (found,) = planes(rows)
    assert [(one.attack, one.code) for one in found.places] == [
        ("badnets", False),
        ("parameter_controlled", True),
    ]


def test_the_detection_game_is_won_by_finding_and_by_keeping_quiet() -> None:
    (found,) = planes([robust(badnets(50), 0.4), detected(badnets(50), 0.7)])
    won = found.places[0].guessed
    assert won.value == pytest.approx((0.8 + 0.9) / 2)
    assert won.n == 20
    sure = guessed_right(*[Estimate(1.0, 0.7, 1.0, 10, "models")] * 2)
    assert (sure.value, sure.high) == (1, 1)
    assert sure.low == pytest.approx(1 - 0.3 * 2**0.5 / 2)


def test_the_front_is_whom_nobody_beats_by_brute_force() -> None:
    values = (0.1, 0.4, 0.8)
    places = [place(left, area) for left, area in itertools.product(values, values)] + [place(0.8, 0.1)]
    expected = [
        one
        for one in places
        if not any(
            other.left["blind"].value >= one.left["blind"].value
            and other.area.value <= one.area.value
            and (other.left["blind"].value, other.area.value) != (one.left["blind"].value, one.area.value)
            for other in places
        )
    ]
    assert {id(one) for one in front(places, "blind")} == {id(one) for one in expected}
    assert len(expected) == 2  # the best place is there twice
    ladder = [place(0.2, 0.1), place(0.5, 0.6), place(0.9, 0.9)]
    assert front(ladder[::-1], "oracle") == ladder


def test_attacks_are_compared_at_equal_success_between_two_strengths() -> None:
    curve = [
        place(0.0, 0.6, dose=10.0, success=0.2),
        place(0.0, 0.8, dose=50.0, success=0.6),
        place(0.0, 1.0, dose=90.0, success=0.9),
    ]
    assert area_at(curve[::-1], 0.5) == pytest.approx(0.6 + 0.2 * 0.75)
    assert area_at(curve, 0.95) is None


def test_a_figure_has_a_mark_for_every_place_and_a_front_for_each_threat_model() -> None:
    (axes,) = plane([place(0.2, 0.5), place(0.6, 0.9, dose=2.0), place(0.4, 0.4, code=True)], "blind").axes
    assert sorted(text.get_text() for text in axes.texts) == ["1", "1", "2"]
    fronts = [line for line in axes.lines if str(line.get_label()).startswith("front of")]
    assert {line.get_drawstyle() for line in fronts} == {"steps-pre"}  # the corner is no better than either place
    labels = axes.get_legend_handles_labels()[1]
    assert {"front of data poisoning", "front of code poisoning"} <= set(labels)


def test_a_section_is_made_for_each_pair_of_players_that_saw_the_same_attack() -> None:
    rows = [
        robust(badnets(50), 0.4),
        robust(badnets(300), 0.9),
        detected(badnets(50), 0.7),
        detected(badnets(300), 0.9),
    ]
    (section,) = plane_sections([*rows, robust(badnets(50), 0.1, repairer={"kind": "weight_decay@1"})])[:1]
    assert section.title == "Robustness against detectability: pivotal tuning and cascade"
    assert section.table is not None
    assert [row[0] for row in section.table.rows] == ["badnets, 50", "badnets, 300"]
    assert section.table.highlight == frozenset({0, 1})
    twice = [robust(badnets(50), left, seed) for seed, left in enumerate((0.4, 0.6))]
    (section,) = plane_sections([*twice, detected(badnets(50), 0.7)])
    assert section.table is not None
    assert section.table.rows[0][3] == "40.0\N{NO-BREAK SPACE}% and 60.0\N{NO-BREAK SPACE}%"  # no interval of two seeds
    (axes,) = section.figures[0].figure.axes
    assert [0.4, 0.6] in [list(line.get_xdata()) for line in axes.lines]  # type: ignore[arg-type]
    assert not plane_sections([])


def test_planes_of_other_trusted_images_are_apart_unless_they_are_to_be_mixed() -> None:
    rows = [robust(badnets(50), 0.4), detected(badnets(50), 0.7)]
    rows += [robust(CODE, 0.9, trusted=2500), detected(CODE, 0.6, trusted=2500), robust(CODE, 0.8, trusted=1250)]
    assert [len(one.places) for one in planes(rows)] == [1, 1]
    (mixed,) = planes(rows, ("trusted",))
    assert [(one.attack, one.trusted, one.left["blind"].value) for one in mixed.places] == [
        ("badnets", COMMON["trusted"], 0.4),
        ("parameter_controlled", 2500, 0.9),
    ], "and a defender who repairs with other images than the one who detects is in none"
    (section,) = plane_sections(rows, mixed=("trusted",))
    assert section.table is not None
    assert section.table.columns[2] == "trusted images"
    assert [line[2] for line in section.table.rows] == [COMMON["trusted"], 2500]
    assert "trusted images" not in plane_sections(rows[:2])[0].table.columns  # type: ignore[union-attr]


def test_a_row_without_its_numbers_is_named() -> None:
    broken = detected(badnets(50), 0.7)
    del broken["result"]["auc"]
    with pytest.raises(StoreError, match="row bbbb"):
        planes([robust(badnets(50), 0.4), broken])
