"""Neural Attention Distillation: attention maps, which layers are compared, and what the teacher is."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from bezoar.defenses.repairers.attention_distillation import AttentionDistillation, attention_map
from bezoar.defenses.repairers.weight_decay import WeightDecay
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, frozen
from bezoar.models.resnet import ResNet18
from bezoar.seed import Seed
from bezoar.testing import toy

CHEAP = AttentionDistillation(steps=3, teacher_steps=4, batch_size=24, augmentation="none")


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_an_attention_map_is_the_energy_of_the_channels_of_unit_length(power: float):
    features = torch.randn(2, 5, 12, generator=Seed(0).generator())
    expected = np.zeros((2, 12))
    for image in range(2):
        for position in range(12):
            expected[image, position] = sum(abs(float(x)) ** power for x in features[image, :, position])
        expected[image] /= np.linalg.norm(expected[image])
    assert np.allclose(attention_map(features, power).numpy(), expected, atol=1e-5)


def test_a_dead_layer_gives_no_nan():
    assert torch.equal(attention_map(torch.zeros(1, 3, 4), 2.0), torch.zeros(1, 4))


def test_what_is_compared_are_the_four_residual_stages_and_not_the_stem():
    model = ResNet18(width=16).build((3, 32, 32), toy.CLASSES, Seed(0)).eval()
    images = torch.rand(2, 3, 32, 32)
    blocks = model.stages(images)
    assert [tuple(one.shape) for one in CHEAP._attention(blocks, images)] == [(2, 1024), (2, 256), (2, 64), (2, 16)]
    assert len(CHEAP.replace(layers=2)._attention(blocks, images)) == 2


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (2, 5, 4, 6)], ids=["channels first", "channels last"])
def test_channels_are_told_from_the_sides_of_an_image(shape: tuple[int, ...]):
    """Six channels over 5 x 4 positions, of images with that aspect."""
    block = torch.rand(shape, generator=Seed(1).generator())
    (found,) = CHEAP._attention([block], torch.rand(2, 3, 10, 8))
    energy = block.square().sum(1 if shape[1] == 6 else 3).flatten(1)
    assert torch.allclose(found, energy / energy.norm(dim=1, keepdim=True), atol=1e-5)


def test_the_trace_gives_stages_and_logits_of_one_pass():
    model = toy.suspect().eval()
    images = torch.rand(3, *toy.SHAPE)
    stages, logits = model.trace(images)
    assert torch.equal(logits, model(images))
    assert all(torch.equal(one, other) for one, other in zip(stages, model.stages(images), strict=True))
    wrapped = Classifier.wrap(toy.network(4), toy.CLASSES).eval()
    assert torch.equal(wrapped.trace(images)[1], wrapped(images))


def test_without_the_attention_term_it_is_plain_fine_tuning():
    """Second route: the same steps by weight decay of 0; the teacher must not leak into the student."""
    repairer = CHEAP.replace(attention_lambda=0)
    plain = WeightDecay(steps=3, lr=0.01, weight_decay=0, batch_size=24, augmentation="none")
    student, other = (
        deque(one.repair(toy.suspect(), toy.trusted(), toy.lab(), toy.SEED), maxlen=1).pop()
        for one in (repairer, plain)
    )
    for name, value in student.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


def test_attention_pulls_the_student_towards_the_teacher(monkeypatch: pytest.MonkeyPatch):
    """A teacher that looks elsewhere (the same network trained from another start) is followed, if asked for."""
    teacher = frozen(toy.lab().train(toy.dataset(), Seed(99)))
    monkeypatch.setattr(AttentionDistillation, "_teacher", lambda *_: teacher)
    images = toy.trusted().images.float() / 255

    def gap(model: Classifier) -> float:
        with torch.no_grad():
            pairs = zip(*(CHEAP._attention(one.stages(images), images) for one in (model, teacher)), strict=True)
            return sum(float((a - b).square().mean()) for a, b in pairs)

    def after(weight: float) -> float:
        repairer = CHEAP.replace(attention_lambda=weight, steps=40, lr=0.001)
        return gap(deque(repairer.repair(toy.suspect(), toy.trusted(), toy.lab(), toy.SEED), maxlen=1).pop())

    assert after(1000.0) < 0.5 * after(0.0)
    assert after(1000.0) < 0.5 * gap(toy.suspect().eval())


def test_a_model_without_blocks_is_refused_in_words():
    plain = Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)), toy.CLASSES)
    with pytest.raises(SettingError, match="'attention_distillation' compares what blocks attend to"):
        next(CHEAP.repair(plain, toy.trusted(), Lab(), Seed(0)))
