"""What is special about each repairer; what all share stands in tests/conformance."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

import pytest
import torch
from torch import Tensor, nn

from bezoar.component import build
from bezoar.defenses.repairers.batchnorm_recalibration import BatchNormRecalibration
from bezoar.defenses.repairers.pivotal_tuning import RESNET18_PARAMETERS, PivotalTuning
from bezoar.defenses.repairers.unlearning import Unlearning
from bezoar.defenses.repairers.weight_decay import WeightDecay
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.resnet import ResNet18, SmallResNet
from bezoar.records import Inspection, Trusted
from bezoar.roles import Architecture, Detector, Repairer
from bezoar.seed import Seed
from bezoar.training.batches import batches

CLASSES = ("a", "b", "c")


@pytest.fixture
def suspect() -> Classifier:
    return SmallResNet(width=16).build((3, 16, 16), CLASSES, Seed(0)).eval()


@pytest.fixture
def trusted() -> Trusted:
    generator = Seed(1).generator()
    images = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return Trusted(images, torch.arange(24) % 3, CLASSES)


def last(models: object) -> Classifier:
    return deque(models, maxlen=1).pop()  # type: ignore[arg-type]


def test_weight_decay_is_plain_sgd_with_the_configured_rate_and_decay(suspect: Classifier, trusted: Trusted) -> None:
    """Second route: the same three steps by hand (guards against a rate that is silently the decay)."""
    repairer = WeightDecay(steps=3, lr=0.03, weight_decay=0.2, batch_size=8, augmentation="none")
    repaired = last(repairer.repair(suspect, trusted, Lab(), Seed(2)))
    student = suspect.copy().train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=0.2)
    for batch in islice(batches(trusted, 8, Seed(2), device=torch.device("cpu")), 3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(student(batch.images), batch.labels).backward()
        optimizer.step()
    for name, value in student.state_dict().items():
        torch.testing.assert_close(repaired.state_dict()[name], value)


def test_unlearning_needs_a_detector_that_reconstructs_triggers(suspect: Classifier, trusted: Trusted) -> None:
    repairer = build(Repairer, {"kind": "unlearning", "detector": "last_layer"})
    with pytest.raises(SettingError, match=r"repairer\.detector: 'last_layer' reconstructs no trigger"):
        next(iter(repairer.repair(suspect, trusted, Lab(), Seed(0))))


def test_batchnorm_recalibration_moves_running_averages_and_no_weight(suspect: Classifier, trusted: Trusted) -> None:
    repaired = last(BatchNormRecalibration(steps=4, batch_size=8).repair(suspect, trusted, Lab(), Seed(2)))
    before, after = suspect.state_dict(), repaired.state_dict()
    moved = {name.rsplit(".", 1)[1] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}


def test_the_two_scalings_of_pivotal_tuning_agree_on_the_papers_network() -> None:
    """At 11,173,962 parameters and ten classes in the batch, the invariant loss is the printed one."""
    model = ResNet18().build((3, 32, 32), tuple("abcdefghij"), Seed(0))
    assert sum(parameter.numel() for parameter in model.parameters()) == RESNET18_PARAMETERS


def test_a_larger_parameter_weight_keeps_the_student_closer_to_the_pivot(suspect: Classifier, trusted: Trusted) -> None:
    def distance(weight: float) -> float:
        tuning = PivotalTuning(steps=8, lr=0.05, param_lambda=weight, batch_size=24, augmentation="none")
        repaired = last(tuning.repair(suspect, trusted, Lab(), Seed(2)))
        pairs = zip(repaired.parameters(), suspect.parameters(), strict=True)
        return sum(float((now - then).detach().square().sum()) for now, then in pairs)

    assert distance(5 * RESNET18_PARAMETERS) < 0.5 * distance(0)


class Told(Detector):
    """A detector that has its answer already: class 1, add a half to the first pixel."""

    abstains: bool = False

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        """The answer."""
        del suspect, lab, seed
        triggers = torch.zeros(3, *trusted.images.shape[1:])
        triggers[1, :, 0, 0] = 0.5
        return Inspection(torch.tensor([0.0, 1.0, 0.0]), triggers, abstained="told to" if self.abstains else "")


Told.kind, Told.revision = "told", 1


def seen_by(
    repairer: Repairer, suspect: Classifier, trusted: Trusted, monkeypatch: pytest.MonkeyPatch
) -> Sequence[Tensor]:
    """What the student is trained on, batch by batch."""
    shown: list[Tensor] = []
    forward = type(suspect).forward

    def watch(self: Classifier, images: Tensor) -> Tensor:
        if self.training:
            shown.append(images.detach().clone())
        return forward(self, images)

    monkeypatch.setattr(type(suspect), "forward", watch)
    last(repairer.repair(suspect, trusted, Lab(), Seed(2)))
    return shown


def carriers(shown: Sequence[Tensor], trusted: Trusted, size: int) -> list[float]:
    """The share of images in each batch that carry the trigger, by comparison with the clean stream."""
    clean = batches(trusted, size, Seed(2), device=torch.device("cpu"))
    return [
        float((images != batch.images).flatten(1).any(1).float().mean())
        for images, batch in zip(shown, clean, strict=False)
    ]


def test_alternating_unlearning_stamps_every_other_batch(
    suspect: Classifier, trusted: Trusted, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = Trusted(trusted.images // 2, trusted.labels, CLASSES)
    repairer = Unlearning(detector=Told(), form="alternating", steps=6, batch_size=24, augmentation="none")
    assert carriers(seen_by(repairer, suspect, dark, monkeypatch), dark, 24) == [1, 0, 1, 0, 1, 0]


def test_mixed_unlearning_stamps_a_share_of_every_batch(
    suspect: Classifier, trusted: Trusted, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = Trusted(trusted.images // 2, trusted.labels, CLASSES)
    repairer = Unlearning(detector=Told(), stamped=0.25, steps=60, batch_size=24, augmentation="none")
    shares = carriers(seen_by(repairer, suspect, dark, monkeypatch), dark, 24)
    assert sum(shares) / len(shares) == pytest.approx(0.25, abs=0.05)
    assert 0 < min(shares) + max(shares) < 1.5


def test_without_a_trigger_unlearning_trains_on_clean_images(
    suspect: Classifier, trusted: Trusted, monkeypatch: pytest.MonkeyPatch
) -> None:
    repairer = Unlearning(detector=Told(abstains=True), steps=4, batch_size=24, augmentation="none")
    assert carriers(seen_by(repairer, suspect, trusted, monkeypatch), trusted, 24) == [0, 0, 0, 0]


def test_repairers_are_built_from_plain_settings() -> None:
    repairer = build(Repairer, {"kind": "unlearning", "detector": {"steps": 5}})
    assert repairer.describe()["detector"]["steps"] == 5
    assert isinstance(build(Architecture, "small_resnet"), SmallResNet)
