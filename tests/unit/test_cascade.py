"""The cascade: one p-value from several detectors, and the thin blends among its tiers."""
# ruff: noqa: ARG002 - the signature is the role's

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from bezoar.component import build, override
from bezoar.defenses.detectors.blended_inversion import BlendedInversion
from bezoar.defenses.detectors.cascade import Cascade
from bezoar.defenses.detectors.maximum_margin import MaximumMargin
from bezoar.defenses.detectors.neural_cleanse import NeuralCleanse
from bezoar.errors import SettingError
from bezoar.games.packing import pack_inspection, unpack_inspection
from bezoar.lab import Lab
from bezoar.measure.outliers import class_p_values, harmonic_mean, outlier_p_value
from bezoar.measure.verdicts import p_value
from bezoar.models.classifier import Classifier
from bezoar.models.resnet import SmallResNet
from bezoar.owner import audit, sees
from bezoar.records import Inspection, Trusted
from bezoar.report.views import audit_page
from bezoar.roles import Detector
from bezoar.seed import Seed
from bezoar.testing import toy

CLASSES = tuple("abcdefgh")
QUIET = torch.linspace(-1, 1, 8)[torch.tensor([3, 0, 6, 2, 7, 1, 5, 4])]


class Says(Detector):
    """A detector that has its answer already."""

    kind: ClassVar[str] = "says"
    revision: ClassVar[int] = 1
    loud: int | None = None
    how: float = 6.0
    shows: float | None = None
    abstains: bool = False

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        scores = QUIET.clone()
        if self.loud is not None:
            scores[self.loud] = self.how
        triggers = None if self.shows is None else torch.full((8, *toy.SHAPE), self.shows)
        return Inspection(scores, triggers, abstained="told to" if self.abstains else "")


class Ranks(Says):
    """One whose scores are no basis for a test."""

    kind: ClassVar[str] = "ranks"
    normal: ClassVar[bool] = False


def asked(*tiers: Detector) -> Inspection:
    trusted = Trusted(torch.zeros(4, *toy.SHAPE, dtype=torch.uint8), torch.arange(4), CLASSES)
    return Cascade(tiers=tiers).inspect(toy.suspect(), trusted, toy.lab(), Seed(1))


def test_each_class_is_tested_against_the_others() -> None:
    """Second route: scipy's t test of one value against the others, pooled variance."""
    scores = torch.tensor([0.3, -1.2, 2.9, 0.1, 0.8, -0.4])
    found = class_p_values(scores)
    for label in range(6):
        others = [float(score) for place, score in enumerate(scores) if place != label]
        expected = stats.ttest_ind([float(scores[label])], others, alternative="greater").pvalue
        assert float(found[label]) == pytest.approx(expected, rel=1e-4)
    assert outlier_p_value(scores) == pytest.approx(6 * float(found.min()))


def test_the_harmonic_mean_lies_between_the_smallest_and_as_many_times_the_smallest() -> None:
    p_values = torch.rand(3, 50, generator=Seed(0).generator(), dtype=torch.float64)
    found, smallest = harmonic_mean(p_values), p_values.amin(0)
    assert bool((found >= smallest).all() and (found <= 3 * smallest).all())
    expected = [3 / sum(1 / value for value in column) for column in p_values.T.tolist()]
    assert found.tolist() == pytest.approx(expected)
    assert harmonic_mean(p_values[:1]).tolist() == pytest.approx(p_values[0].tolist())


def test_tiers_that_are_random_raise_false_alarms_at_about_the_level() -> None:
    draws = torch.randn(600, 3, 10, generator=Seed(3).generator())
    joined = [harmonic_mean(torch.stack([class_p_values(tier) for tier in tiers])) for tiers in draws]
    rate = sum(10 * float(each.min()) < 0.05 for each in joined) / 600
    assert 0.02 < rate < 0.08
    alike = draws[:, :1].expand(-1, 3, -1)  # tiers that say the same thrice
    same = [harmonic_mean(torch.stack([class_p_values(tier) for tier in tiers])) for tiers in alike]
    assert 0.02 < sum(10 * float(each.min()) < 0.05 for each in same) / 600 < 0.08


def test_one_tier_that_is_sure_is_enough_and_two_are_surer() -> None:
    quiet, one, two = (
        p_value(asked(*tiers))
        for tiers in ((Says(), Says(), Says()), (Says(), Says(loud=5), Says()), (Says(loud=5), Says(loud=5), Says()))
    )
    assert quiet > 0.2
    assert two < one < 0.05
    assert asked(Says(), Says(loud=5), Says()).suspect == 5


def test_its_p_value_is_that_of_its_highest_score() -> None:
    found = asked(Says(loud=2), Says())
    assert found.p_value == pytest.approx(8 * 10 ** -float(found.scores.max()), rel=1e-4)


def test_a_cascade_of_one_says_what_that_one_says() -> None:
    found = asked(Says(loud=6))
    assert p_value(found) == pytest.approx(outlier_p_value(found.evidence["says"]))
    assert found.tiers[0].p_value == pytest.approx(p_value(found))


def test_tiers_that_abstain_or_have_no_normal_scores_are_shown_and_do_not_count() -> None:
    alone = asked(Says(loud=4, how=3))
    found = asked(Ranks(loud=1, how=50), Says(loud=2, how=50, abstains=True), Says(loud=4, how=3))
    assert torch.equal(found.scores, alone.scores)
    assert [tier.p_value is None for tier in found.tiers] == [True, True, False]
    assert [tier.suspect for tier in found.tiers] == [1, 2, 4]
    assert found.tiers[1].silence == "the detector abstained: told to"
    assert list(found.evidence) == ["ranks", "says", "says 3"]


def test_where_no_tier_counts_the_cascade_abstains() -> None:
    found = asked(Ranks(loud=1), Says(abstains=True))
    assert found.abstained.startswith("no tier says anything; says: the detector abstained")
    assert p_value(found) == 1
    assert not found.scores.any()


def test_the_trigger_is_that_of_the_tier_that_is_surest_of_the_suspect() -> None:
    found = asked(Says(loud=3, how=4, shows=0.1), Says(loud=3, how=9, shows=0.2), Says(loud=3, how=99))
    assert found.triggers is not None
    assert float(found.triggers.max()) == pytest.approx(0.2)
    assert asked(Says(loud=3)).triggers is None


def test_every_tier_says_in_the_cascade_what_it_says_alone() -> None:
    tiers = (MaximumMargin(starts=2, steps=3), BlendedInversion(steps=3), NeuralCleanse(steps=5, batch_size=8))
    found = Cascade(tiers=tiers).inspect(toy.suspect(), toy.trusted(), toy.lab(), Seed(2))
    for tier in tiers:
        alone = tier.inspect(toy.suspect(), toy.trusted(), toy.lab(), Seed(2))
        assert torch.equal(found.evidence[tier.kind], alone.scores)


def test_what_a_cascade_says_survives_the_store() -> None:
    found = asked(Ranks(), Says(loud=4, shows=0.5))
    again = unpack_inspection(pack_inspection(found))
    assert (again.p_value, again.tiers) == (found.p_value, found.tiers)
    assert torch.equal(again.scores, found.scores)


def test_an_audit_says_what_each_tier_saw_in_words_in_json_and_on_its_page(tmp_path: Path) -> None:
    detector = Cascade(tiers=(Ranks(loud=1), Says(), Says(loud=4, shows=0.5)))
    trusted = Trusted(torch.zeros(8, *toy.SHAPE, dtype=torch.uint8), torch.arange(8), CLASSES)
    model = SmallResNet(width=16).build(toy.SHAPE, CLASSES, Seed(0)).eval()
    found = audit(model, trusted, detector, toy.lab(), Seed(1))
    assert found.verdict == "suspicious"
    assert found.reason.startswith("class 'e' is quite unlike the others (p = ")
    assert sees(found.inspection.tiers[0], CLASSES).startswith(
        "class 'b' is the most suspicious, but that does not count"
    )
    assert sees(found.inspection.tiers[2], CLASSES).startswith("class 'e' is the most suspicious (p = ")
    said = found.as_json(CLASSES)["tiers"]
    assert [(tier["detector"], tier["suspected_class"]) for tier in said] == [
        ("ranks", "b"),
        ("says", "e"),
        ("says 3", "e"),
    ]
    audit_page(tmp_path / "page.html", found, trusted=trusted, model_name="m", provenance={})
    page = (tmp_path / "page.html").read_text()
    for text in ("What did each detector say?", "does not count", ">all that count<", ">says 3<"):
        assert text in page


def test_a_tier_is_changed_by_its_number() -> None:
    settings = Cascade().describe()
    changed = build(Detector, override(settings, ["tiers.2.opacity=0.1", "tiers.0=maximum_margin"]))
    assert isinstance(changed, Cascade)
    assert [tier.kind for tier in changed.tiers][:1] == ["maximum_margin"]
    assert isinstance(changed.tiers[2], BlendedInversion)
    assert changed.tiers[2].opacity == 0.1
    with pytest.raises(SettingError, match=r"tiers\.9\.steps: '9' is no place in a list of 4; they are counted from 0"):
        override(settings, ["tiers.9.steps=1"])


class Brightness(Classifier):
    """Class c answers to the mean of the quarter-wide column c; so the best pattern is known."""

    def __init__(self, ease: float) -> None:
        super().__init__(toy.CLASSES, (0.0,), (1.0,))
        self.last, self.ease = nn.Identity(), ease

    @property
    def head(self) -> nn.Module:
        return self.last

    def features(self, images: Tensor) -> Tensor:
        columns = images.mean((1, 2)).view(len(images), 4, -1).mean(2) * 40
        return columns + self.ease * columns[:, :1] * torch.tensor([1.0, 0, 0, 0])

    def trace(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        return [images], self(images)


def test_a_blended_score_is_the_log_probability_that_the_best_pattern_reaches() -> None:
    """Second route: on a model whose best pattern is white in one column and black elsewhere, by closed form."""
    trusted = Trusted(torch.full((8, *toy.SHAPE), 128, dtype=torch.uint8), torch.arange(8) % 4, toy.CLASSES)
    found = BlendedInversion(steps=200, opacity=0.1, batch_size=8).inspect(Brightness(0), trusted, Lab(), Seed(0))
    bright, dark = (40 * (0.9 * 128 / 255 + 0.1 * value) for value in (1, 0))
    expected = bright - math.log(math.exp(bright) + 3 * math.exp(dark))
    assert found.scores.tolist() == pytest.approx([expected] * 4, abs=0.02)
    assert found.evidence["reached"].tolist() == [1] * 4
    assert found.masks is not None
    assert bool((found.masks == 0.1).all())


def test_a_class_that_a_thin_pattern_reaches_scores_highest() -> None:
    trusted = Trusted(torch.full((8, *toy.SHAPE), 128, dtype=torch.uint8), torch.arange(8) % 4, toy.CLASSES)
    found = BlendedInversion(steps=20, batch_size=8).inspect(Brightness(0.5), trusted, Lab(), Seed(0))
    assert found.suspect == 0


def test_a_thinner_pattern_reaches_less() -> None:
    def reached(opacity: float) -> float:
        detector = BlendedInversion(steps=20, opacity=opacity, batch_size=8)
        return float(detector.inspect(toy.suspect(), toy.trusted(), Lab(), Seed(0)).scores.mean())

    assert reached(0.02) < reached(0.1) < reached(0.5)
