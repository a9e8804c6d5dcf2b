"""Victims of triggerless poisons, trained side by side and one by one, and repaired within their budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bezoar.component import build
from bezoar.games import victims
from bezoar.games.examining import Defence, Examined
from bezoar.games.victims import Scene, fine_tuned
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Poison, Trusted, as_float
from bezoar.roles import Architecture, Repairer
from bezoar.seed import Seed

CLASSES = ("cat", "frog", "ship")


class Twin(Classifier):
    """Pixels straight into a linear head, so that every number can be computed by hand."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__(CLASSES, (0.0,), (1.0,))
        self.linear = torch.nn.Linear(12, 3, bias=bias)
        self.scale = torch.nn.Parameter(torch.ones(12))

    @property
    def head(self) -> torch.nn.Module:
        return self.linear

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.scale

    def trace(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        return [images], self(images)


def scene(exact: bool = False, bias: bool = True) -> Scene:
    draw = Seed(5).generator()

    def some(count: int) -> Dataset:
        images = torch.randint(256, (count, 3, 2, 2), generator=draw, dtype=torch.uint8)
        return Dataset.in_memory(images, torch.arange(count) % 3, CLASSES)

    clean, rows = some(90), torch.tensor([2, 5])
    poisons = []
    for _ in range(3):
        images = torch.randint(256, (2, 3, 2, 2), generator=draw, dtype=torch.uint8)
        memory = {"exact": torch.rand(2, 3, 2, 2, generator=draw)} if exact else {}
        poisons.append(Poison(rows, images, torch.tensor([2, 2]), memory=memory))
    with Seed(6).scoped():
        model = Twin(bias).eval()
    return Scene(model, clean, poisons, some(3), some(40), 2)


@pytest.mark.parametrize(("exact", "bias"), [(False, True), (True, True), (False, False)])
def test_heads_trained_side_by_side_are_those_trained_one_by_one(exact: bool, bias: bool) -> None:
    """Against a plain loop over images with the paper's Adam, for every target and for the clean victim."""
    here, shown = scene(exact, bias), {}
    found = fine_tuned(here, "linear", 8, Lab(), Seed(1), visit=lambda number, one: shown.update({number: one.copy()}))
    for number, poison in enumerate([*here.poisons, None]):
        images = as_float(here.clean.images())
        if poison is not None:
            images[poison.rows] = poison.memory.get("exact", as_float(poison.images))
        model = here.model.copy()
        optimizer = torch.optim.Adam(model.head.parameters(), 0.1)
        order = (Seed(1) / "order").generator()
        for epoch in range(8):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * 0.1 ** ((epoch >= 4) + (epoch >= 6))
            for rows in torch.randperm(90, generator=order).split(64):
                loss = functional.cross_entropy(model(images[rows]), here.clean.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        ends = dict(model.head.named_parameters())
        own = dict(shown[number].head.named_parameters())
        assert own.keys() == ends.keys() == ({"weight", "bias"} if bias else {"weight"})
        assert all(torch.allclose(own[name], end, atol=1e-3) for name, end in ends.items())
        test = model(as_float(here.test.images())).argmax(1) == here.test.labels
        assert (test == found.right[number]).float().mean() > 0.97
        answer = model(as_float(here.targets.images()))
        if poison is None:
            assert answer.argmax(1).equal(found.natural)
        else:
            assert int(answer[number].argmax()) == int(found.predicted[number])
            assert float(answer[number].softmax(0)[2].detach()) == pytest.approx(
                float(found.confidence[number]), abs=1e-3
            )


def test_linear_victims_keep_their_extractor_and_end_to_end_victims_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pre-trained model itself is left alone by both."""
    here, seen = scene(), []
    before = {name: value.clone() for name, value in here.model.state_dict().items()}
    kept = victims._train

    def spy(model: Classifier, *rest: Any, lab: Lab, seed: Seed) -> None:
        kept(model, *rest, lab=lab, seed=seed)
        seen.append({name: value.clone() for name, value in model.state_dict().items()})

    monkeypatch.setattr(victims, "_train", spy)
    fine_tuned(here, "linear", 2, Lab(), Seed(1))
    assert not seen
    fine_tuned(here, "end_to_end", 2, Lab(), Seed(1))
    assert len(seen) == 4, "one for each target and one without poisons"
    assert all(not one["scale"].equal(before["scale"]) for one in seen)
    assert all(value.equal(before[name]) for name, value in here.model.state_dict().items())


def test_end_to_end_victims_keep_their_batch_statistics() -> None:
    images = torch.randint(256, (30, 3, 16, 16), generator=Seed(2).generator(), dtype=torch.uint8)
    clean = Dataset.in_memory(images, torch.arange(30) % 3, CLASSES)
    model = build(Architecture, "small_resnet").build((3, 16, 16), CLASSES, Seed(0)).eval()
    means = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    every = torch.ones(len(images))
    victims._train(model.requires_grad_(True), clean, as_float(images), every, 2, lab=Lab(), seed=Seed(1))
    assert means
    assert all(model.state_dict()[name].equal(value) for name, value in means.items())


@pytest.mark.parametrize("how", ["linear", "end_to_end"])
def test_rows_that_are_not_kept_are_not_learnt(how: victims.Transferred) -> None:
    """A victim whose poisons are left out does not depend on what they are."""
    here = scene()
    kept = torch.ones(4, 90, dtype=torch.bool)
    kept[:3, here.poisons[0].rows] = False
    blank = [replace(one, images=torch.full_like(one.images, 255)) for one in here.poisons]
    answers = [
        fine_tuned(replace(here, kept=kept, poisons=poisons), how, 3, Lab(), Seed(1))
        for poisons in (here.poisons, blank)
    ]
    assert torch.allclose(answers[0].confidence, answers[1].confidence, atol=1e-5)
    poisoned = fine_tuned(replace(here, poisons=blank), how, 3, Lab(), Seed(1))
    assert not torch.allclose(poisoned.confidence, answers[1].confidence, atol=1e-5)


@pytest.mark.parametrize("how", ["linear", "end_to_end"])
def test_every_victim_is_shown_as_it_answers(how: victims.Transferred) -> None:
    here, seen = scene(), {}
    found = fine_tuned(here, how, 3, Lab(), Seed(1), visit=lambda number, model: seen.update({number: model.copy()}))
    assert list(seen) == [0, 1, 2, 3]
    targets = as_float(here.targets.images())
    with torch.no_grad():
        own = [seen[number](targets)[number].softmax(0)[2] for number in range(3)]
        assert seen[3](targets).argmax(1).equal(found.natural)
    assert torch.allclose(torch.stack(own), found.confidence, atol=1e-5)


class Blunt(Repairer):
    """It undoes everything: after one step every image is a cat."""

    kind: ClassVar[str] = "blunt"
    revision: ClassVar[int] = 1

    @property
    def length(self) -> int:
        return 1

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        del trusted, lab, seed
        student = suspect.copy()
        with torch.no_grad():
            for value in student.head.parameters():
                value.zero_()
            student.head.bias[0] = 1  # type: ignore[index]
        yield student


@pytest.mark.parametrize("how", ["linear", "end_to_end"])
@pytest.mark.parametrize("budget", [0.0, 1.0])
def test_a_repair_counts_as_far_as_the_accuracy_budget_allows(how: victims.Transferred, budget: float) -> None:
    """Second route: the answers of the victims themselves before it, and those of a model that knows cats alone."""
    here = scene()
    defence = Defence(Blunt(), None, Trusted.of(here.clean), 2, budget, 1)
    examined = Examined(here, defence, Lab(), Seed(4))
    found = fine_tuned(here, how, 8, Lab(), Seed(1), visit=examined)
    told = examined.facts()["repaired"]
    hits, right = (found.predicted[:2] == 2).float().mean(), found.right[:2].float().mean(1)
    assert told["before"]["attack_success"]["value"] == pytest.approx(float(hits))
    assert told["before"]["attack_success"]["n"] == 2
    assert told["base_rate"]["before"]["value"] == pytest.approx(float((found.natural[:2] == 2).float().mean()))
    cats = float((here.test.labels == 0).float().mean())
    for one, known in zip(told["targets"], right.tolist(), strict=True):
        assert one["before"]["clean_accuracy"]["value"] == pytest.approx(known)
        lost = known - cats
        assert one["final"]["step"] == (1 if lost <= budget else 0)
        assert one["final"]["lost"]["value"] == pytest.approx(lost if lost <= budget else 0, abs=1e-6)
    steps = [one["final"]["step"] for one in told["targets"]]
    left = [int(hit) for hit, step in zip(found.predicted[:2] == 2, steps, strict=True) if not step]
    assert told["final"]["attack_success"]["value"] == pytest.approx(sum(left) / 2)
    if budget == 1:
        assert (steps, told["base_rate"]["final"]["value"]) == ([1, 1], 0)
