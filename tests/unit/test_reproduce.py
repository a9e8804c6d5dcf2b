"""The paper's tables and figures: what is printed, what is measured, and the verdict between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bezoar.errors import StoreError
from bezoar.records import Estimate
from bezoar.reproduce.figures import figure5, figure6, figure7, figure9
from bezoar.reproduce.measured import detected, repaired
from bezoar.reproduce.numbers import Paper, read_paper
from bezoar.reproduce.searched import table5
from bezoar.reproduce.tables import table2, table3
from bezoar.reproduce.verdicts import Claim

FOLDER = Path(__file__).parents[2] / "experiments" / "pick-your-poison"
COMMON = {"data": {"kind": "cifar10@1"}, "architecture": {"kind": "resnet18@1"}, "trainer": {"kind": "sgd@1"}}


@pytest.fixture(scope="module")
def paper() -> Paper:
    return read_paper(FOLDER / "numbers.yaml")


def share(value: float) -> dict[str, Any]:
    return Estimate(value, max(0.0, value - 0.05), min(1.0, value + 0.05), 100, "images").as_json()


def population(
    attack: dict[str, Any],
    poisoned: list[float],
    clean: list[float],
    success: float,
    detector: str = "calibrated_inversion",
) -> dict[str, Any]:
    def model(seed: int, score: float) -> dict[str, Any]:
        scores = [score, *np.linspace(score - 0.3, score - 0.2, 4)]
        seen = {"scores": scores, "evidence": {}, "abstained": False, "p_value": 0.5}
        return {"seed": seed, "score": score, "clean_accuracy": share(0.9), **seen}

    marked = {"target": 0, "attack_success": share(success), "fidelity": None}
    return {
        "address": "b" * 32,
        "game": {
            "kind": "detectability@1", "attack": attack, "detector": {"kind": f"{detector}@1"}, "seed": 0,
            "trusted": 500, "trusted_source": "train", **COMMON,
        },
        "result": {
            "auc": share(0.5),
            "poisoned": [{**marked, **model(seed, score)} for seed, score in enumerate(poisoned)],
            "clean": [model(seed, score) for seed, score in enumerate(clean)],
        },
    }  # fmt: skip


def repair(
    attack: dict[str, Any],
    left: float,
    repairer: str = "pivotal_tuning",
    trusted: int = 500,
    seed: int = 0,
    before: float = 0.95,
) -> dict[str, Any]:
    point = {"step": 10, "clean_accuracy": share(0.9), "attack_success": share(left), "lost": share(0.01)}
    worse = {**point, "attack_success": share(min(1.0, left + 0.2))}
    return {
        "address": "a" * 32,
        "game": {
            "kind": "robustness@1", "attack": attack, "repairer": {"kind": f"{repairer}@1"}, "seed": seed,
            "budget": 0.02, "trusted": trusted, "trusted_source": "train", **COMMON,
        },
        "result": {
            "suspect": {"attack_success": share(before), "clean_accuracy": share(0.92)},
            "twin": {"attack_success": share(0.01), "clean_accuracy": share(0.92)},
            "repaired": {"oracle": point, "final": worse, "blind": worse},
            "curve": [worse, point],
        },
    }  # fmt: skip


def badnets(m: int) -> dict[str, Any]:
    return {"kind": "badnets@1", "poisons": m}


def claim(found: list[Claim] | Any, text: str) -> Claim:
    (one,) = [each for each in found if text in each.text]
    return one


def test_table_3_puts_every_cell_in_its_place_and_judges_by_them(paper: Paper) -> None:
    rows = [
        repair(badnets(50), 0.04, "pivotal_tuning", 500, 0),
        repair(badnets(50), 0.02, "pivotal_tuning", 500, 1),
        repair(badnets(50), 0.90, "weight_decay", 500),
        repair(badnets(50), 0.02, "weight_decay", 1250),
        repair({"kind": "wanet@1", "poisons": 500}, 0.5, "pivotal_tuning", 500),
        *(
            repair({"kind": "wanet@1", "poisons": 500}, left, repairer, 500)
            for left, repairer in ((0.1, "unlearning"), (0.6, "weight_decay"), (0.6, "fine_pruning"))
        ),
        *(repair(badnets(50), 0.04, other, 500) for other in ("unlearning", "fine_pruning", "attention_distillation")),
        *(repair(badnets(50), 0.03, other, 1250) for other in ("unlearning", "fine_pruning", "attention_distillation")),
        repair({"kind": "refool@1", "poisons": 500}, 0.01, "pivotal_tuning", 500, before=0.1),
    ]
    found = table3(rows, paper, comparable=True)
    table = found.sections[0].table
    assert table is not None
    line = dict(zip(table.columns, table.rows[0], strict=True))
    assert (line["attack"], line["m"]) == ("badnets", "50")
    cell = line["pivotal_tuning, 500"]
    assert isinstance(cell, Estimate)
    assert cell.value == pytest.approx(0.03), "the mean of the two seeds' oracle readings"
    assert line["weight_decay, 1,250"] == Estimate.from_json(share(0.02)), "a single seed keeps its own interval"
    assert line["fine_pruning, 2,500"] == "not measured"
    said = {one.what: one.verdict for one in found.compared}
    assert said["badnets, pivotal_tuning, 500 trusted"] == "agrees"
    assert said["wanet, pivotal_tuning, 500 trusted"] == "differs"
    assert said["badnets, weight_decay, 500 trusted"] == "not comparable at this preset", (
        "columns that contradict Table II"
    )
    assert said["adv_clean, pivotal_tuning, 500 trusted"] == "not measured"
    repaired_ones = claim(found.claims, "repairs every attack")
    assert repaired_ones.because == "in 1 of 2: badnets m = 50", "an attack that never worked is none that was repaired"
    least = claim(found.claims, "No repair leaves less")
    assert (least.standing, least.because) == ("holds", "in 1 of 1"), "of wanet one repair has not been measured"
    sparing = claim(found.claims, "needs less data")
    assert (sparing.standing, sparing.because) == ("does not hold", "in 0 of 1"), (
        ".03 with 500 is more than .02 with 1,250"
    )


def test_table_2_has_a_line_for_every_m_and_compares_equal_m_alone(paper: Paper) -> None:
    high, low = [0.8, 0.9, 0.7], [0.1, 0.2, 0.3]
    blend = {"kind": "adaptive_blend@1", "poisons": 50}
    rows = [population(badnets(50), high, low, 0.99), population(badnets(20), [0.1, 0.3, 0.25], low, 0.6)]
    rows += [
        population(blend, [0.1, 0.3, 0.25], low, 0.6),
        population({**blend, "kind": "wanet@1", "poisons": 500}, low, low, 0.1),
    ]
    found = table2(rows, paper, comparable=True)
    table = found.sections[0].table
    assert table is not None
    names = [line[:2] for line in table.rows]
    assert names == [
        ["no backdoor", ""],
        ["adaptive_blend", "50"],
        ["badnets", "20"],
        ["badnets", "50"],
        ["wanet", "500"],
    ]
    said = {one.what: (one.measured and one.measured.value, one.verdict) for one in found.compared}
    assert said["badnets, m = 50: ROC AUC"] == (1.0, "agrees"), "three models a side know little"
    assert said["badnets, m = 50: attack success"] == (pytest.approx(0.99), "agrees")
    assert said["refool, m = 500: ROC AUC"] == (None, "not measured")
    (least,) = found.claims
    expected = roc_auc_score([1] * 3 + [0] * 3, [0.1, 0.3, 0.25, *low])
    assert expected < 0.65
    assert least.because == "in 1 of 2: badnets m = 50", "neither another m than the table's nor an attack that fails"
    other = table2([population(badnets(20), high, low, 0.99)], paper, comparable=True)
    said = {one.what: (one.measured and one.measured.value, one.verdict) for one in other.compared}
    assert said["badnets, m = 50 (ours 20): ROC AUC"] == (1.0, "not comparable at this preset")


def test_figure_5_judges_rises_with_m_and_the_detectors_against_each_other(paper: Paper) -> None:
    clean = list(np.linspace(0.0, 1.0, 20))
    apart, mixed = list(np.linspace(2.0, 3.0, 20)), list(np.linspace(0.02, 0.99, 20))
    rows = [
        population(badnets(m), apart if m == 200 else mixed, clean, success)
        for m, success in ((20, 0.1), (100, 0.95), (200, 0.99))
    ]
    rows += [population(badnets(m), mixed, clean, 0.5, "neural_cleanse") for m in (20, 100, 200)]
    found = figure5(rows, paper, comparable=False)
    assert claim(found.claims, "attack success rises").because.startswith("strongest less weakest: +0.89")
    standing = {one.text: one.standing for one in found.claims}
    assert standing["badnets: attack success rises with m"] == "holds"
    assert standing["badnets: detectability rises with m (calibrated_inversion)"] == "holds"
    assert standing["badnets: detectability rises with m (neural_cleanse)"] == "undecided"
    assert standing["badnets: success saturates before detectability does"] == "holds"
    assert "m = 200 less m = 100" in claim(found.claims, "saturates").because
    assert standing["badnets: calibrated_inversion detects better than neural_cleanse at every m"] == "undecided"
    assert {one.verdict for one in found.compared} == {"not measured", "not comparable at this preset"}
    late = figure5([*rows[:1], *rows[2:]], paper, comparable=False)
    assert claim(late.claims, "saturates").standing == "undecided", "it works only at the largest m"
    (picture,) = found.sections[0].figures
    (axes,) = picture.figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["20", "100", "200"]
    drawn = [list(container[0].get_ydata()) for container in axes.containers]
    assert drawn[0] == pytest.approx([0.1, 0.95, 0.99])
    assert drawn[1][-1] == 1.0


def test_areas_are_those_of_scikit_learn_and_differences_are_theirs() -> None:
    generator = np.random.default_rng(0)
    one, other, clean = generator.normal(1, 1, 15), generator.normal(0.5, 1, 15), generator.normal(0, 1, 15)
    first, second = detected(
        [
            population(badnets(m), list(map(float, scores)), list(map(float, clean)), 0.9)
            for m, scores in ((9, one), (8, other))
        ]
    )
    assert (first.dose, second.dose) == (8, 9), "weakest first"
    labels = [1] * 15 + [0] * 15
    areas = [roc_auc_score(labels, [*scores, *clean]) for scores in (other, one)]
    assert [each.area.value for each in (first, second)] == pytest.approx(areas)
    assert second.above(first).value == pytest.approx(areas[1] - areas[0])


def test_figures_6_and_7_say_what_is_left_over_m_and_who_is_ahead(paper: Paper) -> None:
    rows = [repair(badnets(m), left, seed=seed) for m, left in ((20, 0.1), (200, 0.6)) for seed in (0, 1, 2)]
    rows += [repair(badnets(20), 0.1, seed=0)]  # the same game in another sweep is no fourth seed
    code = {"kind": "parameter_controlled@2", "fraction": 0.1}
    rows += [repair(code, 0.9)]
    (weak, strong, _) = repaired(rows)
    assert [len(one.read) for one in (weak, strong)] == [3, 3]
    assert (strong.left_more(weak).value, strong.left_more(weak).n) == (pytest.approx(0.5), 3)
    sixth = figure6(rows, paper, comparable=False)
    assert claim(sixth.claims, "robustness rises with m").standing == "holds"
    fewer = figure6([row for row in rows if row["game"]["seed"] < 2], paper, comparable=False)
    assert claim(fewer.claims, "robustness rises with m").standing == "undecided", "two equal differences prove nothing"
    (picture,) = sixth.sections[0].figures
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == ["m = 20", "m = 200"]
    seen = [population(badnets(20), [0.3], [0.2], 0.9), population(badnets(200), [0.9], [0.2], 0.9)]
    seventh = figure7([*rows, *seen, population(code, [0.1], [0.2], 0.9)], paper, comparable=False)
    assert claim(seventh.claims, "beat data poisoning").standing == "holds"
    assert len(seventh.sections) == 1
    without = figure7([*rows, *seen], paper, comparable=False)
    assert claim(without.claims, "beat data poisoning").standing == "not measured"


def test_figure_9_draws_both_detectors_for_each_attack(paper: Paper) -> None:
    rows = [
        population(badnets(20), [0.5, 0.6], [0.1, 0.2], 0.9, kind)
        for kind in ("calibrated_inversion", "neural_cleanse")
    ]
    (picture,) = figure9(rows, paper, comparable=False).sections[0].figures
    titles = [axes.get_title(loc="left") for axes in picture.figure.axes]
    assert titles == ["calibrated inversion", "neural cleanse"]
    assert "2 poisoned models" in picture.caption


def test_a_row_of_another_version_is_named(paper: Paper) -> None:
    row = population(badnets(20), [0.5], [0.1], 0.9)
    del row["result"]["poisoned"][0]["clean_accuracy"]
    with pytest.raises(StoreError, match="play the game again"):
        table2([row], paper, comparable=False)


def test_table5_holds_every_searched_setting_beside_the_printed_one(paper: Paper) -> None:
    settings = {"kind": "fine_pruning@1", "lr": 0.0123456, "rate": 0.77, "steps": 119}
    row = repair(badnets(200), 0.3, "fine_pruning", 500)
    row["game"]["repairer"] = settings
    found, left = table5([row], paper, False).sections
    assert found.table is not None
    assert left.table is not None
    assert found.table.rows == [
        ["fine_pruning", "lr", "0.001", "0.1", "0.001", "0.0123"],
        ["fine_pruning", "rate", "0.5", "0.99", "0.96", "0.77"],
    ]
    assert [cell if isinstance(cell, str) else cell.value for cell in left.table.rows[0]][:2] == [
        "fine_pruning", "badnets",
    ]  # fmt: skip
    assert table5([], paper, False).sections == []


def test_table5_says_what_each_search_saw_where_its_row_does(paper: Paper) -> None:
    """Rows of older versions do not; one search serves many attacks, and has one line."""
    old, new, again = (repair(attack, 0.3, "fine_pruning", 500) for attack in (*[badnets(200)] * 2, badnets(100)))
    for row in (old, new, again):
        row["game"]["repairer"] = {"kind": "fine_pruning@1", "lr": 0.0123456, "rate": 0.77}
    given = {"settings": {"lr": 0.001, "rate": 0.96}, "step": 3, "success": 0.8, "lost": 0.01}
    found = {"number": 7, "settings": {"lr": 0.01, "rate": 0.77}, "step": 4, "success": 0.25, "lost": 0.015}
    new["tuned"] = again["tuned"] = {"searched": {}, "trials": 20, "folds": 3, "given": given, "found": found}
    assert len(table5([old], paper, False).sections) == 2
    seen = table5([old, new, again], paper, False).sections[2].table
    assert seen is not None
    assert seen.rows == [["fine_pruning", 20, 0.8, 0.25, 0.015]]
