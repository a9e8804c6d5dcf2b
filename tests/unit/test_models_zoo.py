"""The CIFAR networks, their dropout and their layers."""

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, fx, nn
from zoo import DIGITS, EVERY, PLAIN, SHAPE, images, made, settled

from bezoar.component import build
from bezoar.errors import SettingError
from bezoar.models.anatomy import Unit
from bezoar.models.classifier import Classifier
from bezoar.models.densenet import SmallDenseNet
from bezoar.models.dpn import DualPath
from bezoar.models.mobilenet_v2 import SmallMobileNetV2
from bezoar.models.senet import SmallSENet, SqueezeExcite
from bezoar.models.surrogates import fitted
from bezoar.roles import Architecture
from bezoar.seed import Seed

# parameters at 10 classes, millions of multiply-accumulates, and the layer before the features: as published, and as
# measured on the networks of Zhu et al.'s code
PUBLISHED = {
    "resnet18": (11_173_962, 555, (512, 4, 4), 512),
    "senet18": (11_260_354, 556, (512, 4, 4), 512),
    "resnet50": (23_520_842, 1298, (2048, 4, 4), 2048),
    "resnext29_2x64d": (9_128_778, 1409, (1024, 8, 8), 1024),
    "dpn92": (34_236_634, 2042, (2432, 4, 4), 2560),
    "mobilenet_v2": (2_296_922, 91, (160, 4, 4), 1280),
    "googlenet": (6_166_250, 1522, (832, 8, 8), 1024),
    "densenet121": (6_956_298, 888, (992, 4, 4), 1024),
}
UNITS = {
    "resnet18": 8,
    "resnet50": 16,
    "senet18": 8,
    "resnext29_2x64d": 9,
    "dpn92": 30,
    "mobilenet_v2": 17,
    "googlenet": 9,
    "densenet121": 58,
    "small_resnet": 2,
    "small_senet": 4,
    "small_densenet": 9,
    "small_mobilenet_v2": 5,
    "convolutional": 3,
    "deep_convolutional": 6,
}
# what joins modules where it is not the residual sum alone
JOINTS = {
    "senet18": {operator.add, operator.mul},
    "small_senet": {operator.add, operator.mul},
    "googlenet": {torch.cat},
    "densenet121": {torch.cat},
    "small_densenet": {torch.cat},
    "dpn92": {operator.add, operator.getitem, torch.cat},
    "convolutional": set(),
    "deep_convolutional": set(),
}


@contextmanager
def watched(model: nn.Module, kind: type[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor, Tensor]]]:
    """The layers of a kind in the order in which they run, with what went in and what came out."""
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    handles = [
        layer.register_forward_hook(lambda layer, inputs, output: seen.append((layer, inputs[0], output)))
        for layer in model.modules()
        if isinstance(layer, kind)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def multiply_accumulates(model: nn.Module) -> int:
    with watched(model, nn.Module) as seen, torch.no_grad():
        model(images(1))
    return sum(
        output[0, 0].numel() * layer.weight.numel() if isinstance(layer, nn.Conv2d) else layer.weight.numel()
        for layer, _, output in seen
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_is_the_published_one(name: str):
    parameters, millions, before, features = PUBLISHED[name]
    model = build(Architecture, name).build(SHAPE, DIGITS, Seed(0)).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with torch.no_grad():
        layers = model.layers(images(1), 2)
    assert [layer.shape for layer in layers] == [(1, *before), (1, features)]
    assert multiply_accumulates(model) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize(
    ("architecture", "parameters", "millions"),
    [(SmallSENet(), 156_950, 4.7), (SmallDenseNet(), 62_394, 4.0), (SmallMobileNetV2(), 84_874, 3.1)],
    ids=str,
)
def test_a_small_network_costs_what_it_says(architecture: Architecture, parameters: int, millions: float):
    model = settled(architecture)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert round(multiply_accumulates(model) / 1e6, 1) == millions
    before, features = model.layers(images(2), 2)
    assert before.ndim == 4
    assert before.shape[2:] == model.stages(images(2))[-1].shape[2:]
    assert features.ndim == 2


@pytest.mark.parametrize("architecture", EVERY, ids=str)
def test_no_strided_convolution_is_so_thin_that_torch_corrupts_memory(architecture: Architecture):
    strided = [
        layer for layer in made(architecture).modules() if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1)
    ]
    assert all(min(layer.in_channels, layer.out_channels) >= 16 for layer in strided)
    with pytest.raises(SettingError, match="too narrow"):
        architecture.replace(**{"growth" if hasattr(architecture, "growth") else "width": 8})


@pytest.mark.parametrize("architecture", EVERY, ids=str)
def test_blocks_pooling_and_head_are_the_network(architecture: Architecture):
    model, batch = settled(architecture), images(3)
    stages, logits = model.trace(batch)
    assert torch.allclose(model.linear(stages[-1].mean(dim=(2, 3))), logits, atol=1e-5)
    assert torch.equal(model(batch), logits)
    sides = [stage.shape[-1] for stage in stages]
    assert sides[0] >= sides[1]
    assert sides[1:] == sorted(set(sides[1:]), reverse=True)  # behind the stem, a block for each resolution


@pytest.mark.parametrize("architecture", [*EVERY, *PLAIN], ids=str)
@pytest.mark.usefixtures("unchecked")  # a proxy goes through the network, not a tensor
def test_every_layer_is_a_module_and_only_joints_are_not(architecture: Architecture):
    graph = fx.symbolic_trace(made(architecture)).graph
    functions = {node.target for node in graph.nodes if node.op in ("call_function", "call_method")}
    assert functions - {operator.sub, operator.truediv} == JOINTS.get(
        architecture.kind, {operator.add}
    )  # but for the normalisation


@pytest.mark.parametrize("architecture", [*EVERY, *PLAIN], ids=str)
def test_layers_are_the_outputs_of_the_last_units_and_the_features(architecture: Architecture):
    model, batch = settled(architecture), images(3)
    with watched(model, Unit) as seen:
        features = model.features(batch)
    outputs = [output for _, _, output in seen]
    assert len(outputs) == UNITS[architecture.kind]
    for count in (1, 2, len(outputs)):
        layers = model.layers(batch, count)
        assert len(layers) == count
        assert torch.equal(layers[-1], features)
        expected = outputs[len(outputs) - count : -1]
        assert all(torch.equal(one, other) for one, other in zip(layers[:-1], expected, strict=True))
    for count in (0, len(outputs) + 1):
        with pytest.raises(SettingError, match=f"{count} layers.* {len(outputs)} units"):
            model.layers(batch, count)


def test_layers_of_somebody_else_s_network_are_its_blocks_and_features():
    inner = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 10)
    )
    model, batch = Classifier.wrap(inner, DIGITS), images(2)
    torch.manual_seed(0)
    layers = model.layers(batch, 3)
    torch.manual_seed(0)
    stages = model.stages(batch)
    assert [layer.shape for layer in layers] == [(2, 4, 30, 30), (2, 5, 28, 28), (2, 5)]
    assert torch.equal(layers[-1], stages[-1].flatten(1))  # from one pass: another would have dropped others
    assert all(torch.equal(one, other) for one, other in zip(layers[:-1], stages[-3:-1], strict=True))
    assert len(model.layers(batch, 1)) == 1
    with pytest.raises(SettingError, match="blocks"):
        model.layers(batch, 99)


def test_a_resized_network_has_the_layers_of_the_one_within():
    model = settled(SmallSENet())
    resized = fitted(model, SHAPE, (3, 48, 48), "surrogate")
    layers = resized.layers(torch.rand(2, 3, 48, 48), 4)
    assert [layer.shape for layer in layers] == [layer.shape for layer in model.layers(images(2), 4)]


def test_a_dual_path_adds_the_first_channels_and_collects_the_others():
    batch = images(2)
    body, shortcut = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 5, 1)
    joined = DualPath(body, shortcut, residual=4)(batch)
    assert joined.shape == (2, 4 + 1 + 2, 32, 32)
    assert torch.equal(joined[:, :4], body(batch)[:, :4] + shortcut(batch)[:, :4])
    assert torch.equal(joined[:, 4:5], shortcut(batch)[:, 4:])
    assert torch.equal(joined[:, 5:], body(batch)[:, 4:])


def test_squeeze_and_excitation_is_one_factor_for_each_channel_of_an_image():
    batch = torch.rand(2, 32, 4, 4, generator=Seed(0).generator()) + 0.1
    batch[1] *= 3
    with Seed(1).scoped():
        gated = SqueezeExcite(32, reduction=2)
    factors = gated(batch) / batch
    assert factors.std(dim=(2, 3)).max() < 1e-6
    assert ((factors > 0) & (factors < 1)).all()
    one, other = factors[:, :, 0, 0]
    assert one.std() > 1e-2
    assert (one - other).abs().max() > 1e-2
