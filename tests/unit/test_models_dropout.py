"""Where bezoar's own networks drop, and that nothing else depends on it."""

import pytest
import torch
from torch import nn
from zoo import EVERY, PLAIN, images, made, settled

from bezoar.component import build, members
from bezoar.errors import SettingError
from bezoar.models.anatomy import Concatenate, Unit
from bezoar.models.dpn import DualPath
from bezoar.models.dropout import Dropout, randomised
from bezoar.models.googlenet import GoogLeNet
from bezoar.models.resnet import Residual
from bezoar.models.senet import SmallSENet
from bezoar.roles import Architecture
from bezoar.seed import Seed


def with_dropout(architecture: Architecture, rate: float = 0.25) -> Architecture:
    return architecture.replace(dropout=rate)


@pytest.mark.parametrize("architecture", [*EVERY, *PLAIN], ids=str)
def test_weights_do_not_depend_on_dropout(architecture: Architecture):
    plain, dropping = made(architecture).state_dict(), made(with_dropout(architecture)).state_dict()
    assert list(plain) == list(dropping)
    assert all(torch.equal(plain[key], dropping[key]) for key in plain)


@pytest.mark.parametrize("architecture", [*EVERY, *PLAIN], ids=str)
def test_dropout_is_active_while_batch_normalisation_is_in_evaluation_mode(architecture: Architecture):
    model, batch, keys = settled(with_dropout(architecture)), images(4), torch.arange(4)
    plain = settled(architecture)
    plain.load_state_dict(model.state_dict())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        quiet = model.features(batch)
        assert torch.equal(quiet, plain.features(batch))
        with randomised(model, keys):
            dropped = model.features(batch)
            assert torch.equal(model.features(batch), dropped)
        with randomised(model, keys + 100):
            other = model.features(batch)
        with randomised(plain, keys):
            assert torch.equal(plain.features(batch), quiet)
        for row in range(4):
            assert not torch.allclose(dropped[row], quiet[row], atol=1e-4)
            assert not torch.allclose(dropped[row], other[row], atol=1e-4)
        with randomised(model, keys[1:3]):
            assert torch.allclose(model.features(batch[1:3]), dropped[1:3], atol=1e-5)
        assert torch.equal(model.features(batch), quiet)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


# what runs right before and right after a dropout layer
PLACES = {
    "resnet18": (nn.ReLU, nn.Conv2d, 1),
    "small_resnet": (nn.ReLU, nn.Conv2d, 1),
    "resnet50": (nn.ReLU, nn.Conv2d, 2),
    "resnext29_2x64d": (nn.ReLU, nn.Conv2d, 2),
    "dpn92": (nn.ReLU, nn.Conv2d, 2),
    "mobilenet_v2": (nn.ReLU, nn.Conv2d, 2),
    "small_mobilenet_v2": (nn.ReLU, nn.Conv2d, 2),
    "senet18": (nn.Conv2d, nn.BatchNorm2d, 1),
    "small_senet": (nn.Conv2d, nn.BatchNorm2d, 1),
    "densenet121": (nn.Conv2d, nn.BatchNorm2d, 1),
    "small_densenet": (nn.Conv2d, nn.BatchNorm2d, 1),
}


@pytest.mark.parametrize("architecture", [each for each in EVERY if each.kind in PLACES], ids=str)
def test_each_unit_drops_once_between_its_convolutions(architecture: Architecture):
    """In the order in which layers run: so many convolutions of the body are before it, and at least one behind."""
    model = settled(with_dropout(architecture))
    before, behind, convolutions = PLACES[architecture.kind]
    for unit in [unit for unit in model.modules() if isinstance(unit, Unit)]:
        body = next((part.body for part in unit.modules() if isinstance(part, Residual | DualPath)), unit)
        leaves = [part for part in body.modules() if not list(part.children())]
        (place,) = [number for number, leaf in enumerate(leaves) if isinstance(leaf, Dropout)]
        assert isinstance(leaves[place - 1], before)
        assert isinstance(leaves[place + 1], behind)
        assert sum(isinstance(leaf, nn.Conv2d) for leaf in leaves[:place]) == convolutions
        assert [leaf.rate for leaf in unit.modules() if isinstance(leaf, Dropout)] == [0.25]


def test_googlenet_drops_from_the_output_of_each_module():
    model = settled(with_dropout(GoogLeNet(width=16)))
    units = [unit for unit in model.modules() if isinstance(unit, Unit)]
    assert all([type(part) for part in unit] == [Concatenate, Dropout] for unit in units)
    assert sum(isinstance(layer, Dropout) for layer in model.modules()) == len(units) == 9


def test_training_mode_draws_dropout_from_the_global_generator():
    model, batch = made(SmallSENet(dropout=0.25)).train(), images(4)
    with (Seed(1)).scoped():
        one = model(batch)
    with (Seed(1)).scoped():
        same = model(batch)
    with (Seed(2)).scoped():
        other = model(batch)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_rate_out_of_range_is_a_mistake_in_the_settings():
    for rate in (-0.1, 1.0):
        with pytest.raises(SettingError, match="dropout"):
            build(Architecture, {"kind": "senet18", "dropout": rate})


def test_every_network_of_bezoar_s_own_has_dropout_and_a_normalisation():
    own = [cls for cls in members("architectures").values() if cls.__module__ != "bezoar.models.foreign"]
    fields = [set(cls.model_fields) for cls in own if not {"target", "architecture"} & set(cls.model_fields)]
    assert len(fields) == len([*EVERY, *PLAIN])
    assert all({"dropout", "mean", "std"} <= names for names in fields)
