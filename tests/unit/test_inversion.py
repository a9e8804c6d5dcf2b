"""Trigger inversion and the detectors built on it, with the defects of the peers as regression tests."""
# ruff: noqa: ARG002 - the signature is the role's

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from bezoar.defenses.detectors.calibrated_inversion import CalibratedInversion
from bezoar.defenses.detectors.neural_cleanse import NeuralCleanse, _Best
from bezoar.defenses.inversion import AdditiveTriggers, MaskedTriggers, Triggers, counters, invert
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, frozen
from bezoar.records import Trusted
from bezoar.roles import Repairer
from bezoar.seed import Seed
from bezoar.testing import toy

CPU = torch.device("cpu")
EVERY = range(4)


class Stubborn(Classifier):
    """Answers class 2, whatever it sees; its logits have gradients all the same."""

    def __init__(self) -> None:
        super().__init__(toy.CLASSES, (0.0,), (1.0,))
        self.last = nn.Identity()

    @property
    def head(self) -> nn.Module:
        return self.last

    def features(self, images: Tensor) -> Tensor:
        bias = torch.tensor([0.0, 0.0, 50.0, 0.0])
        return images.mean((1, 2, 3))[:, None] * torch.tensor([1.0, -1.0, 0.5, 2.0]) + bias

    def trace(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        return [images], self(images)


class Nothing(Repairer):
    """A repair that repairs nothing."""

    kind: ClassVar[str] = "nothing"

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        yield suspect.copy().eval()

    @property
    def length(self) -> int:
        return 1


def inverted(made: type[Triggers], labels: list[int], steps: int = 8) -> Triggers:
    """The triggers of some of the four classes after some steps, with the batches that all would see."""
    bank = made(toy.SHAPE, 4, Seed(0) / "triggers")
    moving = [parameter for label in labels for parameter in bank.parameters_of(label)]
    run = invert(
        bank,
        frozen(toy.suspect()),
        toy.trusted(),
        labels,
        weights=lambda: torch.full((4,), 1e-2),
        success=counters(4, CPU),
        optimizer=torch.optim.Adam(moving, 0.05),
        batch_size=8,
        device=CPU,
        seed=Seed(0) / "inversion",
    )
    list(islice(run, steps))
    return bank


def of(bank: Triggers, label: int) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in bank.parameters_of(label)])


@pytest.mark.parametrize("made", [MaskedTriggers, AdditiveTriggers])
@pytest.mark.parametrize("labels", [[3], [3, 0], [2, 3, 1, 0]], ids=str)
def test_a_class_s_trigger_does_not_depend_on_the_other_classes(made: type[Triggers], labels: list[int]):
    """X2 of the peers: the penalty weight of a class began where the class before had left it."""
    among_all, by_itself = inverted(made, list(EVERY)), inverted(made, labels)
    assert torch.allclose(of(by_itself, 3), of(among_all, 3), atol=2e-3)
    start = made(toy.SHAPE, 4, Seed(0) / "triggers")
    assert not torch.allclose(of(by_itself, 3), of(start, 3), atol=2e-2)
    for label in set(EVERY) - set(labels):
        assert torch.equal(of(by_itself, label), of(start, label))


def test_a_class_s_norm_and_penalty_weight_do_not_depend_on_the_other_classes():
    detector = NeuralCleanse(steps=18, round=3, batch_size=12, cost=0.01, threshold=0.9)
    found: dict[str, _Best] = {}
    for name, labels in {"all": [0, 1, 2, 3], "turned": [3, 2, 1, 0], "alone": [3]}.items():
        bank = MaskedTriggers(toy.SHAPE, 4, Seed(0) / "triggers")
        found[name] = _Best(bank, 256.0, CPU)
        detector._run(bank, frozen(toy.suspect()), toy.trusted(), labels, found[name], 18, Lab(), Seed(0) / "all")
    for name in ("turned", "alone"):
        assert found[name].norms[3] == pytest.approx(float(found["all"].norms[3]), rel=0.02)
        assert found[name].cost[3] == found["all"].cost[3]
        assert found[name].success[3] == found["all"].success[3]
    assert found["all"].cost[3] > 0  # the comparison is of weights that moved
    assert (found["alone"].norms[:3] == 256).all()


def test_a_trigger_counts_only_while_it_works():
    """X1 of the peers: the smallest mask won, although it fooled nobody."""
    found = NeuralCleanse(steps=20, round=2, batch_size=8).inspect(Stubborn(), toy.trusted(), Lab(), Seed(0))
    norms, success = found.evidence["norm"], found.evidence["success"]
    assert norms[[0, 1, 3]].tolist() == [256.0] * 3  # the whole image
    assert success[[0, 1, 3]].tolist() == [0.0] * 3
    assert norms[2] < 256
    assert success[2] == 1
    assert found.suspect == 2


def masked(size: float) -> MaskedTriggers:
    """A bank whose masks cover `size` pixels each, with a pattern that tells which bank it is."""
    bank = MaskedTriggers(toy.SHAPE, 2, Seed(0))
    with torch.no_grad():
        for mask, pattern in zip(bank.raw_masks, bank.raw_patterns, strict=True):
            mask.fill_(float(torch.atanh(torch.tensor(size / 256 * 2 - 1))))
            pattern.fill_(float(torch.atanh(torch.tensor(size / 256 * 2 - 1))))
    return bank


def test_the_smallest_trigger_that_ever_worked_is_kept_and_not_the_last():
    """X4 of the peers: the threshold was forgotten every epoch, so that the last mask above it won."""
    best = _Best(masked(200), 256.0, CPU)
    rounds = [(100, 1.0), (40, 1.0), (10, 0.5), (90, 1.0), (60, 1.0)]
    for size, rate in rounds:
        best.keep_smallest(masked(size), [0, 1], torch.tensor([rate, 0.0]), 0.99)
    assert best.norms.tolist() == pytest.approx([40.0, 256.0], rel=1e-4)
    assert best.success.tolist() == [1, 0]
    assert float(best.triggers[0].mean()) == pytest.approx(40 / 256, rel=1e-4)  # pattern and mask of that round
    assert best.masks is not None
    assert float(best.masks[0].sum()) == pytest.approx(40, rel=1e-4)


def test_a_penalty_weight_waits_for_success_then_doubles_or_falls_with_streaks():
    best = _Best(masked(100), 256.0, CPU)
    course: list[float] = []
    for works in (False, True, True, True, True, True, False, False, False, False):
        best.adjust([0], torch.tensor([works, False]), 0.1, patience=2)
        course.append(float(best.cost[0]))
    # set at the first success, doubled after every two more, and divided by 2^1.5 after every two failures
    assert course == pytest.approx([0, 0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.4 / 2**1.5, 0.4 / 2**1.5, 0.4 / 2**3])
    assert best.cost[1] == 0


def test_a_score_is_minus_the_logarithm_of_a_norm_and_refinement_does_not_move_it():
    plain, refined = (
        NeuralCleanse(steps=10, round=2, batch_size=8, threshold=0.3, cost=0.01, refine=refine).inspect(
            toy.suspect(), toy.trusted(), Lab(), Seed(0)
        )
        for refine in (0, 10)
    )
    assert torch.equal(plain.scores, refined.scores)
    assert torch.allclose(plain.scores, -plain.evidence["norm"].log())
    worst = plain.suspect
    others = [label for label in EVERY if label != worst]
    assert plain.triggers is not None
    assert refined.triggers is not None
    assert refined.masks is not None
    assert plain.masks is not None
    assert torch.equal(plain.triggers[others], refined.triggers[others])
    assert refined.masks[worst].sum() < plain.masks[worst].sum()


def test_the_additive_form_scores_the_change_that_is_left_after_clamping():
    detector = NeuralCleanse(form="additive", steps=5, batch_size=24)
    found = detector.inspect(toy.suspect(), toy.trusted(), Lab(), Seed(0))
    trusted = toy.trusted()
    assert found.triggers is not None
    assert found.masks is None
    for label in EVERY:
        images = trusted.images[trusted.labels != label].float() / 255
        change = [float((found.stamp(image[None], label) - image).abs().sum()) for image in images]
        assert float(found.evidence["norm"][label]) == pytest.approx(sum(change) / len(change), rel=1e-4)


@pytest.mark.parametrize("detector", [NeuralCleanse(steps=4), NeuralCleanse(steps=4, form="additive")], ids=str)
def test_trusted_images_of_one_class_alone_do_not_stop_an_inspection(detector: NeuralCleanse):
    trusted = toy.trusted()
    alike = trusted.take((trusted.labels == 1).nonzero()[:, 0])
    found = detector.replace(refine=3).inspect(toy.suspect(), alike, Lab(), Seed(0))
    assert bool(found.scores.isfinite().all())
    assert found.evidence["success"][1] == 0  # there was no image to stamp


def test_batches_that_show_the_wanted_class_alone_are_passed_over():
    found = NeuralCleanse(steps=12, round=3, batch_size=1, refine=12).inspect(
        toy.suspect(), toy.trusted(), Lab(), Seed(0)
    )
    assert bool(found.scores.isfinite().all())


@pytest.mark.parametrize("steps", [1, 5])
def test_two_identical_models_have_no_score_and_the_detector_abstains(steps: int):
    detector = CalibratedInversion(reference=Nothing(), steps=steps, batch_size=8, lr=0.1)
    found = detector.inspect(toy.suspect(), toy.trusted(), Lab(), Seed(0))
    assert found.scores.tolist() == [0.0] * 4
    assert torch.equal(found.evidence["success"], found.evidence["success_after"])
    assert found.abstained == "its reference repair changed no answer"


def test_one_image_cannot_both_make_a_trigger_and_judge_it():
    with pytest.raises(SettingError, match="needs at least 2, and there is 1; use 'neural_cleanse'"):
        CalibratedInversion(steps=1).inspect(toy.suspect(), toy.trusted().take(torch.tensor([3])), Lab(), Seed(0))


class Ruin(Nothing):
    """A repair after which the model answers class 2 for ever."""

    kind: ClassVar[str] = "ruin"

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        yield Stubborn()


def test_a_calibrated_score_is_the_success_that_the_repair_took_away():
    found = CalibratedInversion(reference=Ruin(), steps=4).inspect(toy.suspect(), toy.trusted(), Lab(), Seed(0))
    assert not found.abstained
    assert torch.allclose(found.scores, found.evidence["success"] - found.evidence["success_after"], atol=1e-6)
    assert found.evidence["success_after"].tolist() == [0, 0, 1, 0]
    assert found.scores[2] <= 0


def test_a_masked_trigger_replaces_and_an_additive_one_adds():
    images = toy.photographs()
    with torch.no_grad():
        bank = masked(128)  # mask and pattern are a half everywhere
        assert torch.allclose(bank.stamp(images, 0), images / 2 + 0.25, atol=1e-6)
        assert float(bank.size(images, 0)) == pytest.approx(128, rel=1e-5)
        added = AdditiveTriggers(toy.SHAPE, 2, Seed(0))
        assert all(float(raw.min()) >= 0 and float(raw.max()) <= 0.01 for raw in added.raw)
        added.raw[1].fill_(0.5)
        assert torch.equal(added.stamp(images, 1), (images + 0.5).clamp(0, 1))
        assert float(added.size(torch.zeros(2, *toy.SHAPE), 1)) == pytest.approx(0.5 * 3 * 256)
        assert float(added.size(torch.ones(2, *toy.SHAPE), 1)) == 0
