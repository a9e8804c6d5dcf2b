"""What figures claim: nothing global is touched, differences are amplified as said, the right class is framed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bezoar.errors import DataError
from bezoar.games.repairing import Look, Point
from bezoar.records import Estimate, Inspection
from bezoar.report import figures, tiles, tradeoffs
from bezoar.report.canvas import VERMILLION
from bezoar.report.page import Picture, Section, write_page

CLASSES = ("<script>", "$5 & $6", "bird \N{CJK UNIFIED IDEOGRAPH-9CE5}", "a name that is much too long for any figure")
IMAGES = torch.arange(4 * 3 * 8 * 8, dtype=torch.uint8).view(4, 3, 8, 8)
SHARE = Estimate(0.25, 0.125, 0.5, 20, "images")
CURVE = [Point(step, SHARE, SHARE, SHARE) for step in (0, 10, 20)]
ROW = {
    "game": {"budget": 0.02},
    "result": {"repaired": dict.fromkeys(("oracle", "final", "blind"), CURVE[1].as_json())},
}


def inspection(*, masked: bool = True, channels: int = 3) -> Inspection:
    generator = torch.Generator().manual_seed(0)
    triggers = torch.rand(4, channels, 8, 8, generator=generator) - (0 if masked else 0.5)
    masks = torch.rand(4, 1, 8, 8, generator=generator) if masked else None
    return Inspection(torch.tensor([-1.0, -4.0, -4.1, -4.2]), triggers, masks)


def all_figures() -> list[Figure]:
    scores = inspection().scores
    return [
        figures.repair_curves({"$x$ ^": CURVE, "b": CURVE}, 0.02),
        figures.class_scores({"suspect": scores, "twin": scores * float("inf")}, CLASSES, 1),
        figures.class_scores({"one": torch.arange(200.0)}, [f"class {k}" for k in range(200)], None),
        tradeoffs.trade_off({"a": [ROW], "b": [ROW, ROW]}),
        figures.score_strips([figures.Dot(1.0, right=True)], [figures.Dot(float("nan"), right=False)]),
        figures.held_out([], 0),
        figures.held_out([Look(10, SHARE, SHARE, accepted=True)], 10),
        tiles.pictures(IMAGES[:, :1], IMAGES[:, :1], CLASSES),
        tiles.triggers(inspection(channels=1), CLASSES),
        tiles.triggers(inspection(masked=False), CLASSES),
    ]


def test_figures_leave_no_trace_in_matplotlib(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    made = all_figures()
    write_page(
        tmp_path / "page.html",
        title="t",
        verdict="v",
        tone="open",
        sections=[Section("s", figures=[Picture(figure, "") for figure in made])],
        provenance={},
    )
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before
    assert (tmp_path / "page.html").read_text().count("<img") == len(made)


def test_a_difference_is_amplified_to_full_scale_and_the_figure_says_by_how_much() -> None:
    clean = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    poisoned = clean.clone()
    poisoned[0, :, 0, 0] = 100 + 51  # a fifth of the scale
    figure = tiles.pictures(clean, poisoned)
    line = [axes for axes in figure.axes if "difference" in axes.get_ylabel()]
    assert line[0].get_ylabel().endswith(" 5")
    pixels = np.asarray(line[0].images[0].get_array())
    assert pixels[0, 0] == pytest.approx([1, 1, 1])
    assert pixels[1, 1] == pytest.approx([0.5, 0.5, 0.5])


def test_the_suspected_class_alone_is_framed() -> None:
    figure = tiles.triggers(inspection(), CLASSES)
    framed = [axes.get_title() for axes in figure.axes if axes.patches]
    assert len(framed) == 2  # its trigger and its mask
    assert framed[0].startswith("<script>")


def test_a_pattern_that_lies_thinly_is_drawn_at_full_strength_with_its_opacity() -> None:
    found = inspection()
    assert found.masks is not None
    faint = replace(found, masks=torch.full_like(found.masks, 0.05))
    figure = tiles.triggers(faint, CLASSES)
    (first, *_) = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()] == ["opacity 0.05"] * 4
    assert found.triggers is not None
    drawn = np.asarray(first.images[0].get_array())
    assert drawn == pytest.approx(found.triggers[0].permute(1, 2, 0).numpy(), abs=1e-6)
    solid = np.asarray(tiles.triggers(found, CLASSES).axes[0].images[0].get_array())
    assert solid != pytest.approx(drawn, abs=1e-2)


def test_no_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        tiles.pictures(IMAGES[:0], IMAGES[:0])


def test_a_curve_passes_through_its_readings_and_marks_the_budget() -> None:
    attack, clean = figures.repair_curves({"unlearning": CURVE}, 0.02).axes
    assert [line.get_xydata().tolist() for line in attack.lines if len(line.get_xydata())] == [  # pyright: ignore
        [[0, 0.25], [10, 0.25], [20, 0.25]]
    ]
    assert 0.25 - 0.02 in [float(np.asarray(line.get_ydata())[0]) for line in clean.lines]


@pytest.mark.parametrize("accused", [None, 2])
def test_of_one_model_only_an_accused_class_is_red(accused: int | None) -> None:
    (axes,) = figures.class_scores({"m": torch.tensor([1.0, 2.0, 3.0, 4.0])}, CLASSES, accused).axes
    red = [place for place, bar in enumerate(axes.patches) if to_hex(bar.get_facecolor()).upper() == VERMILLION]
    assert red == ([] if accused is None else [accused])


def test_of_many_classes_the_most_suspicious_are_drawn_and_the_figure_says_so() -> None:
    names = [f"class {label}" for label in range(200)]
    (axes,) = figures.class_scores({"m": torch.arange(200.0)}, names, None).axes
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == names[-figures.MANY_CLASSES :]
    assert "of 200 classes" in axes.get_title(loc="left")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("repairers", "attacks"), [(5, 3), (50, 1), (1, 50), (1, 1)])
def test_fifty_groups_have_a_panel_for_each_repairer_and_no_legend_that_covers_it(
    tmp_path: Path, repairers: int, attacks: int
) -> None:
    groups = {
        f"a group with a name as long as they are, number {number}": [
            {
                **ROW,
                "game": {
                    "budget": 0.02,
                    "repairer": {"kind": f"repairer_{number % repairers}@1"},
                    "attack": {"kind": f"attack_{number % attacks}@1"},
                },
            }
        ]
        for number in range(50)
    }
    figure = tradeoffs.trade_off(groups)
    figure.savefig(tmp_path / "figure.png")
    assert len(figure.axes) == repairers
    assert {axes.get_title(loc="left") for axes in figure.axes} == {f"repairer {one}" for one in range(repairers)}
    drawn = sum(
        len(np.asarray(line.get_xdata())) for axes in figure.axes for line in axes.lines if line.get_marker() != "None"
    )
    assert drawn == 50 * 3
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts() if text.get_text().startswith("attack")]
    assert len(named) == (attacks if attacks <= tradeoffs.MANY_GROUPS else 0)
    top = legend.get_window_extent().y1
    assert all(axes.get_tightbbox().y0 >= top - 1 for axes in figure.axes)  # pyright: ignore
