"""The owner's audit: its verdicts, and whether it would have found anything."""
# ruff: noqa: ARG002 - the signature is the role's

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from bezoar.defenses.detectors.last_layer import LastLayer
from bezoar.lab import Lab
from bezoar.measure.estimates import proportion
from bezoar.models.classifier import Classifier
from bezoar.owner import Audit, Power, audit
from bezoar.records import Inspection, Trusted
from bezoar.roles import Detector
from bezoar.seed import Seed
from bezoar.testing import toy
from bezoar.testing.watch import state

QUIET = torch.tensor([0.1, 0.0, 0.2, 0.1])


class Scripted(Detector):
    """It gives the answers that a test wrote down, and remembers whom it was asked about."""

    asked: ClassVar[list[Classifier]] = []
    answers: ClassVar[list[torch.Tensor]] = []
    kind: ClassVar[str] = "scripted"

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        self.asked.append(suspect)
        return Inspection(self.answers[len(self.asked) - 1])


def asked(*answers: torch.Tensor, power: bool = True) -> Audit:
    Scripted.asked.clear()
    Scripted.answers[:] = answers
    return audit(
        toy.suspect().eval(), Trusted.of(toy.dataset(72, "trusted")), Scripted(), toy.lab(), Seed(3), power=power
    )


def loud(label: int) -> torch.Tensor:
    scores = QUIET.clone()
    scores[label] = 9.0
    return scores


def test_a_class_that_stands_out_is_suspicious_and_no_second_question_is_asked():
    found = asked(loud(1))
    assert (found.verdict, found.inspection.suspect, found.power) == ("suspicious", 1, None)
    assert len(Scripted.asked) == 1


def test_where_nothing_is_found_the_detector_is_asked_about_a_copy_with_a_planted_backdoor():
    target = asked(QUIET, QUIET).power.target  # type: ignore[union-attr]
    found = asked(QUIET, loud(target))
    assert found.verdict == "nothing found"
    assert found.power is not None
    assert found.power.found
    assert found.power.success.value > 0.8
    original, copy = Scripted.asked
    assert state(original)["weights"] != state(copy)["weights"]
    assert "would have been found" in found.power.sentence(toy.CLASSES)
    assert found.as_json(toy.CLASSES)["power"]["found"] is True  # type: ignore[index]


def test_a_planted_backdoor_that_is_missed_or_taken_for_another_class_is_said_to_be():
    target = asked(QUIET, QUIET).power.target  # type: ignore[union-attr]
    for answer in (QUIET, loud((target + 1) % 4)):
        power = asked(QUIET, answer).power
        assert power is not None
        assert not power.found
        assert "would not have been found either" in power.sentence(toy.CLASSES)


def test_a_planted_backdoor_that_did_not_take_proves_nothing():
    power = Power(2, proportion(torch.arange(20) < 7), 2, 0.001)
    assert "did not take" in power.sentence(toy.CLASSES)


def test_a_detector_whose_scores_are_not_normal_gives_no_verdict():
    """Its outliers are more frequent than the test knows; it still ranks."""
    found = audit(toy.suspect().eval(), toy.trusted(), LastLayer(), toy.lab(), Seed(0))
    assert found.verdict == "inconclusive"
    assert "gives no verdict: its scores rank classes but cannot tell how far is too far" in found.reason


def test_scores_that_are_no_numbers_are_inconclusive():
    found = asked(torch.tensor([0.0, float("nan"), 1.0, 0.0]))
    assert (found.verdict, found.power) == ("inconclusive", None)
    assert "no finite scores" in found.reason


def test_nobody_needs_to_ask_for_the_power():
    found = asked(QUIET, power=False)
    assert (found.verdict, found.power, len(Scripted.asked)) == ("nothing found", None, 1)
    assert found.as_json(toy.CLASSES)["power"] is None


@pytest.mark.parametrize("power", [True, False])
def test_an_audit_leaves_the_model_alone(power: bool):
    Scripted.asked.clear()
    Scripted.answers[:] = [QUIET, QUIET]
    model = toy.suspect().eval()
    before = state(model)
    audit(model, toy.trusted(), Scripted(), toy.lab(), Seed(0), power=power)
    assert state(model) == before
