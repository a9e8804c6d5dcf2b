"""Detectors on populations of models: what is computed from a cascade's rows is what the cascade would say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score

from bezoar.defenses.detectors.blended_inversion import BlendedInversion
from bezoar.defenses.detectors.cascade import Cascade
from bezoar.defenses.detectors.maximum_margin import MaximumMargin
from bezoar.defenses.detectors.neural_cleanse import NeuralCleanse
from bezoar.errors import StoreError
from bezoar.games.detectability import _seen
from bezoar.measure.verdicts import p_value
from bezoar.records import Inspection, Tier
from bezoar.report.canvas import VERMILLION
from bezoar.report.populations import areas, attack_of, class_histograms, of_tiers, populations, subsets, tier
from bezoar.seed import Seed
from bezoar.testing import toy

TIERS = (MaximumMargin(starts=2, steps=3), BlendedInversion(steps=3), NeuralCleanse(steps=5, batch_size=8))
"""The last finds no trigger that works in so few steps, so it does not count."""


def scored(seed: int, target: int | None, shift: float) -> dict[str, Any]:
    """One model of a synthetic row, as the game writes it."""
    scores = torch.randn(2, 6, generator=(Seed(seed) / str(target)).generator())
    if target is not None:
        scores[:, target] += shift
    tiers = (Tier("one", 0, 0.5), Tier("other", 0, 0.5))
    evidence = {"one": scores[0], "other": scores[1]}
    inspection = Inspection(scores.mean(0), evidence=evidence, p_value=0.5, tiers=tiers)
    seen = _seen(inspection, Seed(seed))
    return seen if target is None else {"target": target, **seen, "fidelity": {"overlap": 0.25}}


def row(poisons: int, shift: float, kind: str = "cascade@1") -> dict[str, Any]:
    poisoned = [scored(seed, poisons % 6, shift) for seed in range(20)]
    clean = [scored(seed, None, 0) for seed in range(30)]
    game = {"detector": {"kind": kind}, "attack": {"kind": "badnets@1", "poisons": poisons}}
    return {"address": "a" * 32, "game": game, "result": {"poisoned": poisoned, "clean": clean}}


def test_rows_are_read_by_detector_with_all_their_attacks() -> None:
    found = populations([row(50, 1), row(300, 4), row(50, 2, "neural_cleanse@1")])
    assert list(found) == ["cascade", "neural_cleanse"]
    cascade = found["cascade"]
    assert list(cascade.poisoned) == ["badnets, m = 50", "badnets, m = 300"]
    assert (len(cascade.pooled), len(cascade.clean)) == (40, 30)
    assert cascade.pooled[0].fidelity == {"overlap": 0.25}
    assert set(cascade.clean[0].tiers) == {"one", "other"}


def test_areas_are_those_of_scikit_learn_by_attack_and_pooled() -> None:
    rows = [row(50, 1), row(300, 4)]
    cascade = populations(rows)["cascade"]
    clean = [max(one["scores"]) for one in rows[0]["result"]["clean"]]
    for attack, few in ((attack_of(rows[0]), rows[:1]), (attack_of(rows[1]), rows[1:]), (None, rows)):
        scores = [max(one["scores"]) for each in few for one in each["result"]["poisoned"]]
        expected = roc_auc_score([1] * len(scores) + [0] * len(clean), [*scores, *clean])
        assert cascade.area(attack).value == pytest.approx(expected)


def test_a_tier_alone_and_all_tiers_together_are_what_the_detectors_say() -> None:
    """Second route: the detectors themselves, asked about the toy suspect."""
    inspection = Cascade(tiers=TIERS).inspect(toy.suspect(), toy.trusted(), toy.lab(), Seed(2))
    made = {**row(50, 1), "result": {"poisoned": [{"target": 1, **_seen(inspection, Seed(0))}], "clean": []}}
    cascade = populations([made])["cascade"]
    (whole,) = of_tiers(cascade, [one.kind for one in TIERS]).pooled
    torch.testing.assert_close(whole.scores, inspection.scores)
    assert whole.p_value == pytest.approx(p_value(inspection), rel=1e-4)
    assert inspection.tiers[2].p_value is None
    for one in TIERS:
        alone = one.inspect(toy.suspect(), toy.trusted(), toy.lab(), Seed(2))
        (seen,) = tier(cascade, one.kind).pooled
        torch.testing.assert_close(seen.scores, alone.scores)
        silent = one.kind == "neural_cleanse"
        assert seen.p_value == pytest.approx(1 if silent else p_value(alone), rel=1e-4)
        assert seen.named is (int(alone.scores.argmax()) == 1)


def test_a_detector_is_better_where_its_scores_are_and_not_better_than_itself() -> None:
    strong, weak = (populations([row(50, shift), row(300, shift)])["cascade"] for shift in (6, 0))
    assert strong.better_than(weak).low > 0
    assert strong.better_than(strong).value == 0
    with pytest.raises(ValueError, match="did not see the same models"):
        strong.better_than(populations([row(50, 6)])["cascade"])


def test_rows_that_differ_in_more_than_the_attack_are_not_one_population() -> None:
    other = row(300, 4)
    other["game"]["trusted"] = 100
    with pytest.raises(StoreError, match="another row of 'cascade' was played with other settings"):
        populations([row(50, 1), other])


def test_every_way_to_keep_a_tier_is_there_once() -> None:
    found = subsets(["a", "b", "c"])
    assert found[0] == ("a", "b", "c")
    assert len(found) == len(set(found)) == 2**3 - 1


def test_a_row_without_scores_is_named() -> None:
    broken = row(50, 1)
    del broken["result"]["clean"]
    with pytest.raises(StoreError, match="row aaaa"):
        populations([broken])


def test_a_figure_shows_every_attack_and_the_pool() -> None:
    found = [populations([row(50, 1), row(300, 4)])["cascade"]]
    (axes,) = areas([*found, tier(found[0], "one")]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "badnets\nm = 50",
        "badnets\nm = 300",
        "all\npooled",
    ]
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(marks) == 2 * 3


def test_a_histogram_counts_every_class_once() -> None:
    found = [populations([row(50, 1)])["cascade"]]
    (axes,) = class_histograms(found, "badnets, m = 50").axes
    red = [bar for bar in axes.patches if bar.get_facecolor()[:3] == pytest.approx(_rgb(VERMILLION))]
    assert len(red) == 24
    assert sum(bar.get_height() * bar.get_width() for bar in red) == pytest.approx(1)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
