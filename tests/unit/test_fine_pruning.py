"""Fine-Pruning: which channels go, what is left of them, and that the fine-tuning after it is real."""

from __future__ import annotations

from collections import deque

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from bezoar.defenses.repairers.fine_pruning import FinePruning, convolutions
from bezoar.errors import SettingError
from bezoar.games.repairing import watched
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, mode
from bezoar.models.resnet import ResNet18
from bezoar.records import Trusted, as_float
from bezoar.seed import Seed
from bezoar.testing import toy
from bezoar.training.batches import Batch, batches

CHEAP = FinePruning(steps=4, rate=0.5, batch_size=24, augmentation="none")


def everything(trusted: Trusted) -> Batch:
    return next(batches(trusted, len(trusted), Seed(0), device=torch.device("cpu")))


def last_convolution(model: Classifier) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Of the toy network: the second convolution in the body of its last block."""
    block = model.get_submodule("blocks.2.0.body.2")
    assert isinstance(block, nn.Sequential)
    convolution, norm = block
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return convolution, norm


def activity_by_hand(model: Classifier, images: Tensor) -> Tensor:
    """Second route: the network up to the last convolution, spelt out."""
    stem, first, second = model.get_submodule("blocks")
    with torch.no_grad(), mode(model, training=False):
        body = second[0].body(first(stem(model.normalise(images))))
    return functional.relu(body).mean((0, 2, 3))


def pruned(repairer: FinePruning) -> Classifier:
    """The student right after pruning."""
    return next(iter(repairer.repair(toy.suspect(), toy.trusted(), toy.lab(), toy.SEED)))


def test_the_channels_that_go_are_those_that_clean_images_use_least():
    trusted = toy.trusted()
    images = as_float(trusted.images)
    quiet = activity_by_hand(toy.suspect().eval(), images).argsort()[:32]
    convolution, norm = last_convolution(pruned(CHEAP))
    silent = (convolution.weight == 0).flatten(1).all(1)
    assert sorted(silent.nonzero()[:, 0].tolist()) == sorted(quiet.tolist())
    assert torch.equal(silent, norm.weight == 0)
    assert bool((norm.bias[silent] == 0).all())


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.96])
def test_the_share_is_exact_and_no_other_layer_is_touched(rate: float):
    before, after = toy.suspect().state_dict(), pruned(CHEAP.replace(rate=rate)).state_dict()
    differing = {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert differing == (set() if rate == 0 else {"blocks.2.0.body.2.0", "blocks.2.0.body.2.1"})
    zero = (after["blocks.2.0.body.2.0.weight"] == 0).flatten(1).all(1)
    assert int(zero.sum()) == round(rate * 64)


def test_all_layers_lose_that_share_of_their_channels():
    student = pruned(CHEAP.replace(layers="all"))
    layers = [layer for layer in student.modules() if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 7
    for layer in layers:
        assert int((layer.weight == 0).flatten(1).all(1).sum()) == layer.out_channels // 2


def test_the_tuning_after_pruning_is_real():
    """F7: a loop without gradient steps, as in the released code, leaves the loss where pruning put it."""
    repairer = CHEAP.replace(steps=30, lr=0.01, rate=0.9)
    batch = everything(toy.trusted())

    def loss(model: Classifier) -> float:
        with torch.no_grad():
            return float(functional.cross_entropy(model(batch.images), batch.labels))

    losses = [loss(model) for model in repairer.repair(toy.suspect(), toy.trusted(), toy.lab(), toy.SEED)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("freeze", [True, False])
def test_reset_filters_and_scales_stay_at_zero_and_shifts_do_if_they_are_frozen(freeze: bool):
    """A filter's gradient has the scale as a factor and the other way round, so neither can leave zero alone."""
    repairer = CHEAP.replace(freeze_pruned=freeze, lr=0.05, steps=20)
    models = repairer.repair(toy.suspect(), toy.trusted(), toy.lab(), toy.SEED)
    convolution, norm = last_convolution(next(models))
    gone = (convolution.weight == 0).flatten(1).all(1)
    convolution, norm = last_convolution(deque(models, maxlen=1).pop())
    assert torch.equal((convolution.weight == 0).flatten(1).all(1), gone)
    assert torch.equal(norm.weight == 0, gone)
    assert torch.equal(norm.bias == 0, gone) if freeze else not bool((norm.bias[gone] == 0).any())


def test_a_layer_keeps_at_least_one_channel():
    zero = (pruned(CHEAP.replace(rate=0.999)).state_dict()["blocks.2.0.body.2.0.weight"] == 0).flatten(1).all(1)
    assert int(zero.sum()) == 63


def test_the_referee_looks_right_after_pruning():
    looks = watched(CHEAP, toy.suspect(), toy.trusted(), 3, toy.lab(), toy.SEED)
    assert [step for step, _ in looks] == [1, 3, 5]


def test_the_last_convolution_is_the_body_s_whatever_the_shortcut():
    images = Batch(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), torch.tensor([0, 1]))
    ours = ResNet18(width=16).build((3, 32, 32), toy.CLASSES, Seed(0)).eval()
    theirs = Classifier.wrap(torchvision.models.resnet18(num_classes=4), toy.CLASSES).eval()
    for model, name in ((ours, "blocks.4.1.0.body.2.0"), (theirs, "module.layer4.1.conv2")):
        found = convolutions(model, [images])
        assert len(found) == 20
        assert found[-1].convolution is model.get_submodule(name)
        assert all(one.norm is not None for one in found)


def test_gates_and_patch_embeddings_are_no_convolutions_to_prune():
    """Squeeze-and-excitation ends in a gate, a transformer begins with an embedding; both are convolutions by class."""
    images = Batch(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), torch.tensor([0, 1]))
    gated = Classifier.wrap(timm.create_model("legacy_seresnet18", num_classes=4), toy.CLASSES).eval()
    assert convolutions(gated, [images])[-1].convolution is gated.get_submodule("module.layer4.1.conv2")
    transformer = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=32)
    assert convolutions(Classifier.wrap(transformer, toy.CLASSES).eval(), [images]) == []


def test_a_norm_belongs_to_a_convolution_only_if_nothing_comes_between():
    """Before an activation block the next block's norm takes a sum, not the convolution's output."""
    width = 4
    convolution, norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
    between = nn.Sequential(convolution, nn.Tanh(), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))
    images = Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), torch.tensor([0, 1]))
    (found,) = convolutions(Classifier.wrap(between, toy.CLASSES).eval(), [images])
    assert found.norm is None


def test_a_model_without_convolutions_is_refused_in_words():
    plain = Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)), toy.CLASSES)
    with pytest.raises(SettingError, match="'fine_pruning' prunes channels of convolutions, and this model has none"):
        next(CHEAP.repair(plain, toy.trusted(), Lab(), Seed(0)))
