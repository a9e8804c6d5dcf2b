"""The transfer game's rows: what is read from them, and what they say of the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bezoar.errors import SettingError, StoreError
from bezoar.measure.estimates import wilson
from bezoar.records import Estimate
from bezoar.report.transfers import Transferred, overlap, transfer_sections, transferred
from bezoar.reproduce.transfer import figure3, figure5, figure6, figure7, figure8, read_printed

NUMBERS = Path(__file__).parents[2] / "experiments" / "convex-polytope" / "numbers.yaml"


def share(value: float, n: int) -> dict[str, Any]:
    low, high = wilson(value, n)
    return Estimate(value, low, high, n, "targets").as_json()


def row(
    kind: str,
    hits: list[int],
    *,
    victim: str = "resnet18",
    natural: list[int] | None = None,
    attack: dict[str, Any] | None = None,
    game: dict[str, Any] | None = None,
    ends: float = 0.1,
) -> dict[str, Any]:
    base = natural or [0] * len(hits)
    accuracy = {name: share(value, 1000) for name, value in (("pretrained", 0.95), ("fine_tuned", 0.93))}
    return {
        "address": "a" * 32,
        "game": {
            "kind": "transfer@1",
            "attack": {
                "kind": f"{kind}@1", "layers": 1, "dropout": [0.2], "base_class": 8,
                "substitutes": [{"kind": "senet18@1"}], **(attack or {}),
            },
            "architecture": {"kind": f"{victim}@1"},
            "transfer": "linear", "seed": 0, "substitute_data": [0, 1], "victim_data": [0, 1], **(game or {}),
        },
        "result": {
            "success": share(sum(hits) / len(hits), len(hits)),
            "base_rate": share(sum(base) / len(base), len(base)),
            "clean_accuracy": {**accuracy, "poisoned": share(0.923, 50)},
            "targets": [
                {
                    "row": 100 + at, "predicted": 8 if hit else 6, "natural": 8 if own else 6,
                    "victim_polytope": ends + at / 1000, "victim_collision": 10 * ends + at / 1000,
                }
                for at, (hit, own) in enumerate(zip(hits, base, strict=True))
            ],
            "looks": [
                {"step": step, "substitutes": 1 / step, "victim_polytope": 2 / step, "victim_collision": 9 / step}
                for step in (10, 20)
            ],
        },
    }  # fmt: skip


FEW, MANY = [1] * 2 + [0] * 18, [1] * 14 + [0] * 6


def test_a_row_is_read_with_what_tells_it_from_others() -> None:
    one = Transferred.read(row("convex_polytope", MANY, victim="resnet18"))
    assert (one.attack, one.victim, one.box) == ("convex polytope", "resnet18", "black")
    assert one.success.value == 0.7
    assert sum(one.hits.values()) == 14
    assert Transferred.read(row("convex_polytope", MANY, victim="senet18")).box == "gray"
    known = row("convex_polytope", MANY, victim="senet18", game={"victim": "substitute"})
    assert Transferred.read(known).box == "white"
    released = {"layers": 2, "last_layer": "collision", "dropout": [0]}
    assert Transferred.read(row("convex_polytope", MANY, attack=released)).attack == (
        "convex polytope, 2 layers, as released, no dropout"
    )
    assert Transferred.read(row("bullseye_polytope", MANY, attack={"draws": 3})).attack == "bullseye polytope, 3 draws"
    broken = row("convex_polytope", MANY)
    del broken["result"]["looks"]
    with pytest.raises(StoreError, match="no result of this version"):
        transferred([broken])


@pytest.mark.parametrize(
    ("substitutes", "victim", "said"),
    [
        ((0, 1), (0, 1), "100 % of the victim's data"),
        ((0, 0.5), (0.25, 0.75), "50 % of the victim's data, which are 50 % of the images"),
        ((0, 0.5), (0, 1), "50 % of the victim's data"),
        ((0, 0.5), (0.5, 1), "0 % of the victim's data, which are 50 % of the images"),
    ],
    ids=["all", "half of a half", "half of all", "none"],
)
def test_overlap_is_the_part_of_the_victim_s_data_that_substitutes_share(
    substitutes: tuple[float, float], victim: tuple[float, float], said: str
) -> None:
    game = {"substitute_data": list(substitutes), "victim_data": list(victim)}
    assert overlap(Transferred.read(row("convex_polytope", MANY, game=game))) == f"substitutes share {said}"


def test_the_page_shows_success_base_rate_and_accuracy_of_every_row_and_the_losses() -> None:
    rows = [row(kind, hits) for kind, hits in (("feature_collision", FEW), ("convex_polytope", MANY))]
    first, second = transfer_sections(rows)
    assert first.table is not None
    assert [line[0] for line in first.table.rows] == ["feature collision", "convex polytope"]
    assert "shared data" not in first.table.columns
    assert len(first.figures) == 1
    assert len(second.figures) == 1
    axes = second.figures[0].figure.axes[0]
    assert list(axes.get_lines()[0].get_ydata()) == [0.2, 0.1]
    assert not transfer_sections([])


def test_what_a_sanitizer_did_stands_in_a_table_of_its_own() -> None:
    one = row("convex_polytope", MANY, game={"sanitizer": {"kind": "deep_knn@1"}})
    one["result"]["sanitized"] = {
        "auc": share(0.9, 20), "poisoned_removed": share(0.6, 20), "clean_removed": share(0.04, 20),
        "success": share(0.1, 20),
    }  # fmt: skip
    plain, screened = transfer_sections([one])
    assert plain.title == "Triggerless poisons"
    assert screened.table is not None
    (line,) = screened.table.rows
    assert line[:3] == ["convex polytope", "resnet18", "deep_knn"]
    assert line[3] == Estimate.from_json(share(0.9, 20))


def test_figure_5_judges_by_differences_target_by_target() -> None:
    rows = [row(kind, hits) for kind, hits in (("feature_collision", FEW), ("convex_polytope", MANY))]
    found = figure5(rows, NUMBERS, comparable=True)
    beats, bullseye, black, white = found.claims
    assert beats.standing == "holds"
    assert beats.because.startswith("convex polytope less feature collision: +0.60 [")
    assert bullseye.standing == "not measured"
    assert black.standing == "holds"
    assert black.because.startswith("black box: +0.70")
    assert white.standing == "not measured"
    cells = {one.what: one for one in found.compared}
    assert cells["convex polytope, resnet18"].printed == 0.52
    assert cells["convex polytope, resnet18"].verdict == "agrees", ".70 of 20 is within reach of .52"
    assert cells["feature collision, resnet18"].printed == 0.14
    assert cells["convex polytope, dpn92"].verdict == "not measured"
    same = figure5([row(kind, MANY) for kind in ("feature_collision", "convex_polytope")], NUMBERS, comparable=False)
    assert same.claims[0].standing == "undecided"
    assert same.claims[0].because.endswith("+0.00 [-0.17, +0.17]"), "20 equal targets do not say that none could differ"
    turned = [row(kind, hits) for kind, hits in (("feature_collision", MANY), ("convex_polytope", FEW))]
    assert figure5(turned, NUMBERS, comparable=False).claims[0].standing == "does not hold"


def test_an_attack_that_only_repeats_the_base_rate_misleads_nobody() -> None:
    rows = [row("convex_polytope", MANY, natural=MANY)]
    assert figure5(rows, NUMBERS, comparable=False).claims[2].standing == "undecided"


def test_figure_6_compares_half_of_the_data_with_none_of_it() -> None:
    half = {"substitute_data": [0, 0.5], "victim_data": [0.25, 0.75]}
    none = {"substitute_data": [0, 0.5], "victim_data": [0.5, 1]}
    rows = [row("convex_polytope", MANY, game=half), row("convex_polytope", FEW, game=none)]
    found = figure6(rows, NUMBERS, comparable=True)
    assert [one.standing for one in found.claims] == ["holds", "undecided"]
    cells = {one.what: one for one in found.compared if one.measured is not None}
    assert {what: one.printed for what, one in cells.items()} == {
        "convex polytope, resnet18, half 24k": 0.34,
        "convex polytope, resnet18, none 24k": 0.24,
    }


def test_figure_7_compares_two_layers_with_one() -> None:
    game = {"transfer": "end_to_end"}
    rows = [
        row("convex_polytope", FEW, game=game),
        row("convex_polytope", MANY, game=game, attack={"layers": 2, "last_layer": "polytope"}),
    ]
    found = figure7(rows, NUMBERS, comparable=True)
    assert [one.standing for one in found.claims] == ["holds", "holds"]
    assert {one.what: one.printed for one in found.compared if one.measured is not None} == {
        "convex polytope, resnet18": 0.08,
        "convex polytope, 2 layers, resnet18": 0.80,
    }


def test_figure_3_asks_whether_dropout_brings_poisons_nearer_in_the_victim() -> None:
    rows = [
        row("convex_polytope", MANY, ends=0.1),
        row("convex_polytope", MANY, ends=0.2, attack={"dropout": [0]}),
        row("feature_collision", MANY, ends=0.2),
        row("feature_collision", MANY, ends=0.1, attack={"dropout": [0]}),
    ]
    polytope, collision = figure3(rows, NUMBERS, comparable=False).claims
    assert polytope.standing == "holds"
    assert polytope.because.startswith("loss less: +0.10")
    assert collision.standing == "does not hold"


def test_figure_8_puts_the_cost_in_accuracy_beside_the_printed_one() -> None:
    found = figure8([row(kind, MANY) for kind in ("feature_collision", "convex_polytope")], NUMBERS, comparable=True)
    cells = {one.what: one for one in found.compared if one.measured is not None}
    assert {what: one.measured.value for what, one in cells.items() if one.measured} == {
        "pretrained, resnet18": 0.95,
        "clean, resnet18": 0.93,
        "feature_collision, resnet18": 0.923,
        "convex_polytope, resnet18": 0.923,
    }
    assert found.claims[0].standing == "holds"
    assert found.claims[0].because.startswith("a point less the cost: +0.00")


def test_the_printed_numbers_are_the_papers_and_their_means_those_of_the_text() -> None:
    printed = read_printed(NUMBERS).figures
    means = {
        f"{figure}/{name}": round(sum(bars.values()) / len(bars), 4)
        for figure in ("figure5", "figure6", "figure7")
        for name, bars in printed[figure].items()
    }
    assert means == {
        "figure5/feature_collision": 0.2625, "figure5/convex_polytope": 0.505,
        "figure6/half_24k": 0.3175, "figure6/half_48k": 0.2325, "figure6/none_24k": 0.1975,
        "figure7/features": 0.035, "figure7/two_layers": 0.535,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["linear", "overlap", "end_to_end"])
def test_the_paper_s_preset_crafts_for_as_long_as_the_paper(name: str) -> None:
    """Section 4: no more than 4,000 iterations in each experiment; the rest is the default, without rounding."""
    preset = yaml.safe_load(NUMBERS.with_name(f"{name}.yaml").read_text())["presets"]["paper"]
    attacks = preset["grid"].get("attack") or [preset["attack"]]
    assert {(one["steps"], one["quantize"]) for one in attacks} == {(4000, "none")}
    assert all(one.keys().isdisjoint({"poisons", "epsilon", "lr", "dropout", "precision"}) for one in attacks)


def test_a_file_without_the_numbers_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        read_printed(tmp_path / "numbers.yaml")
    (tmp_path / "numbers.yaml").write_text(yaml.safe_dump({"paper": {}}))
    with pytest.raises(SettingError, match="these are not the paper's numbers"):
        read_printed(tmp_path / "numbers.yaml")
