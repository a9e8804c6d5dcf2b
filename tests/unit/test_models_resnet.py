"""bezoar's own networks."""

import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from bezoar.component import digest
from bezoar.models.classifier import Classifier, StagedClassifier
from bezoar.models.resnet import Residual, ResNet18, SmallResNet
from bezoar.roles import Architecture
from bezoar.seed import Seed

DIGITS = tuple("0123456789")
SHAPE = (3, 32, 32)
SMALL = [ResNet18(width=16), SmallResNet(width=16), SmallResNet(width=16, stages=4)]


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolution(inputs: int, outputs: int, kernel: int = 3) -> int:
    """Weights of a convolution without bias, and the scale and shift of its batch normalisation."""
    return inputs * outputs * kernel**2 + 2 * outputs


def settled(architecture: Architecture, shape: tuple[int, int, int] = SHAPE) -> Classifier:
    """A network whose batch normalisation has seen images, so that evaluation mode is not the initial one."""
    model = architecture.build(shape, DIGITS, Seed(1))
    model(torch.rand(8, *shape, generator=Seed(2).generator()))
    return model.eval()


def images(count: int, name: str = "images") -> Tensor:
    return torch.rand(count, *SHAPE, generator=(Seed(3) / name).generator())


def test_resnet18_has_the_published_number_of_parameters():
    torchvision = pytest.importorskip("torchvision")
    here = parameters(ResNet18().build(SHAPE, DIGITS, Seed(0)))
    for_imagenet = parameters(torchvision.models.resnet18(num_classes=10))
    assert here == 11_173_962
    assert here == for_imagenet - 3 * 64 * (7**2 - 3**2)  # but for the stem's kernel it is torchvision's


def test_small_resnet_has_the_promised_number_of_parameters():
    by_hand = convolution(3, 16) + 64 * 10 + 10
    for inputs in (16, 32):
        outputs = 2 * inputs
        by_hand += convolution(inputs, outputs) + convolution(outputs, outputs) + convolution(inputs, outputs, 1)
    assert parameters(SmallResNet().build(SHAPE, DIGITS, Seed(0))) == by_hand == 73_370


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_the_logits_are_the_head_of_the_features(architecture: Architecture):
    model, batch = settled(architecture), images(5)
    features = model.features(batch)
    assert features.ndim == 2
    assert torch.equal(model(batch), model.head(features))
    assert isinstance(model.head, nn.Linear)
    assert torch.allclose(model(batch), features @ model.head.weight.T + model.head.bias, atol=1e-6)


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_the_pooled_last_stage_is_the_features(architecture: Architecture):
    model, batch = settled(architecture), images(5)
    stages = model.stages(batch)
    assert torch.allclose(stages[-1].mean(dim=(2, 3)), model.features(batch), atol=1e-6)
    sides = [stage.shape[-1] for stage in stages]
    assert sides == sorted(sides, reverse=True)
    assert sides[0] == SHAPE[-1]


def test_normalisation_is_the_first_layer():
    architecture = SmallResNet(width=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    model, batch = settled(architecture), images(4)
    assert isinstance(model, StagedClassifier)
    by_hand = torch.stack(
        [(batch[:, 0] - 0.1) / 0.5, (batch[:, 1] - 0.2) / 0.25, (batch[:, 2] - 0.3) / 2.0],
        dim=1,
    )
    assert torch.allclose(model(batch), model.linear(model.pool(model.blocks(by_hand))), atol=1e-5)
    assert not torch.allclose(model(batch), model.linear(model.pool(model.blocks(batch))), atol=1e-3)


@pytest.mark.parametrize("architecture", SMALL, ids=str)
@pytest.mark.usefixtures("unchecked")  # a proxy goes through the network, not a tensor
def test_every_layer_is_a_module_and_only_sums_are_not(architecture: Architecture):
    graph = fx.symbolic_trace(architecture.build(SHAPE, DIGITS, Seed(0))).graph
    functions = {node.target for node in graph.nodes if node.op in ("call_function", "call_method")}
    assert functions == {operator.sub, operator.truediv, operator.add}  # normalisation, and the residual sums


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_without_its_activation_modules_the_network_is_affine(architecture: Architecture):
    """The second route: an activation that were no module would still bend it."""
    one, other, zero = images(4, "one").double(), images(4, "other").double(), torch.zeros(4, *SHAPE).double()
    bent = settled(architecture).double()
    straight = bent.copy()
    for parent in list(straight.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.ReLU):
                setattr(parent, name, nn.Identity())
    for model, affine in ((straight, True), (bent, False)):
        assert torch.allclose(model(one) + model(other), model(one + other) + model(zero), atol=1e-6) == affine


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_the_seed_alone_decides_the_initial_weights(architecture: Architecture):
    torch.manual_seed(0)
    first = architecture.build(SHAPE, DIGITS, Seed(5)).state_dict()
    torch.manual_seed(1)
    again = architecture.build(SHAPE, DIGITS, Seed(5)).state_dict()
    other = architecture.build(SHAPE, DIGITS, Seed(6)).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["linear.weight"], other["linear.weight"])


@pytest.mark.parametrize("architecture", SMALL, ids=str)
def test_building_leaves_the_global_generator_alone(architecture: Architecture):
    before = torch.get_rng_state()
    architecture.build(SHAPE, DIGITS, Seed(5))
    assert torch.equal(torch.get_rng_state(), before)


def test_images_of_one_channel_and_another_size_fit():
    model = settled(SmallResNet(width=16), (1, 28, 20))
    assert model(torch.rand(2, 1, 28, 20)).shape == (2, 10)


# from before these two networks had dropout
ADDRESSES = {
    ResNet18(): "63e9e0cbbaf19a941bbf9d709cc0c09b",
    ResNet18(width=16): "d1d95e2885b39edeb24d6a6317b16ec5",
    SmallResNet(): "db464f9e48532dba19f204fb1c8731ec",
    SmallResNet(width=16, stages=4): "550694933366c92a57260431771cbda5",
}


@pytest.mark.parametrize("architecture", ADDRESSES, ids=str)
def test_networks_from_before_dropout_keep_their_addresses(architecture: Architecture):
    assert digest(architecture.identity()) == ADDRESSES[architecture]
    assert digest(architecture.replace(dropout=0.25).identity()) != ADDRESSES[architecture]


def old_convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


def old_block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    body = nn.Sequential(old_convolution(inputs, outputs, stride), nn.ReLU(), old_convolution(outputs, outputs))
    same = stride == 1 and inputs == outputs
    shortcut = nn.Identity() if same else old_convolution(inputs, outputs, stride, kernel=1)
    return nn.Sequential(Residual(body, shortcut), nn.ReLU())


def old_resnet18(width: int) -> list[nn.Module]:
    stem = nn.Sequential(old_convolution(3, width), nn.ReLU())
    first = nn.Sequential(old_block(width, width, 1), old_block(width, width, 1))
    others = [
        nn.Sequential(old_block(width * 2**number // 2, width * 2**number, 2), old_block(*[width * 2**number] * 2, 1))
        for number in (1, 2, 3)
    ]
    return [stem, first, *others]


def old_small_resnet(width: int) -> list[nn.Module]:
    stem = nn.Sequential(old_convolution(3, width), nn.ReLU())
    return [stem, old_block(width, 2 * width, 2), old_block(2 * width, 4 * width, 2)]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    ("architecture", "old", "factor"),
    [(ResNet18(width=16), old_resnet18, 8), (SmallResNet(), old_small_resnet, 4)],
    ids=["resnet18", "small_resnet"],
)
def test_networks_from_before_dropout_keep_their_keys_and_weights(
    architecture: Architecture, old: Callable[[int], list[nn.Module]], factor: int, dropout: float
):
    """Stored models are loaded into them, and results that were committed came from them."""
    now = architecture.replace(dropout=dropout).build(SHAPE, DIGITS, Seed(5)).state_dict()
    with Seed(5).scoped():
        before = StagedClassifier(old(16), 16 * factor, DIGITS, (0.5,), (0.25,)).state_dict()
    assert list(now) == list(before)
    assert all(torch.equal(now[key], before[key]) for key in now)
