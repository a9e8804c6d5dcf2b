"""Bounds of margins: sound, nested, exact where they can be, and refused by name where they cannot be had."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bezoar.bounds.intervals import ball, propagate
from bezoar.bounds.layers import Convolution, Pooling, Reshape, Scale
from bezoar.bounds.linear import tightened
from bezoar.bounds.margins import margins
from bezoar.bounds.network import read
from bezoar.errors import SettingError
from bezoar.models.anatomy import Unit
from bezoar.models.classifier import Classifier, StagedClassifier
from bezoar.models.dropout import Dropout
from bezoar.models.resnet import Residual, SmallResNet
from bezoar.models.senet import SmallSENet
from bezoar.seed import Seed

CLASSES = ("a", "b", "c")
METHODS = ("ibp", "crown_ibp", "crown", "alpha_crown")
ROUNDING = 1e-4
POINTS, STEPS = 400, 15


def dense() -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(2 * 6 * 6, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Unflatten(1, (7, 1, 1))]


def strided() -> list[nn.Module]:
    return [
        Unit(nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        Unit(nn.Conv2d(6, 8, 2, groups=2, bias=False), nn.ReLU(), nn.AvgPool2d(2, stride=1)),
        nn.Sequential(nn.Flatten(), Dropout(0.5), nn.Linear(8, 7), nn.ReLU(), nn.Unflatten(1, (7, 1, 1))),
    ]


def residual() -> list[nn.Module]:
    body = nn.Sequential(nn.Conv2d(4, 7, 3, stride=2, padding=1), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 7, 1))
    return [
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=2, dilation=2), nn.ReLU()),
        Unit(Residual(body, nn.Conv2d(4, 7, 2, stride=2)), nn.ReLU()),
        Unit(Residual(nn.Conv2d(7, 7, 3, padding=1), nn.Identity()), nn.ReLU(), nn.AvgPool2d(2, padding=1)),
    ]


NETWORKS = {"dense": dense, "strided": strided, "residual": residual}


def network(name: str, number: int = 0) -> StagedClassifier:
    """Random weights, and batch normalisation that has seen images."""
    with Seed(number).scoped():
        model = StagedClassifier(NETWORKS[name](), 7, CLASSES, (0.4, 0.5), (0.25, 0.2))
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
        model(torch.rand(16, 2, 6, 6))
    return model.eval()


def photographs(number: int = 0, count: int = 4) -> Tensor:
    images = torch.rand(count, 2, 6, 6, generator=Seed(number).generator())
    images[0] = (images[0] * 3 - 1).clamp(0, 1)  # many pixels at the ends of their range
    return images


def true(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    logits = model(images)
    return logits.gather(1, labels[:, None]) - logits


def moved(model: Classifier, images: Tensor, labels: Tensor, epsilon: float, norm: str) -> Iterator[Tensor]:
    """Points of the balls: corners and random ones, then gradient steps against every margin in turn."""
    draw = (Seed(9) / norm).generator()

    def onto(change: Tensor) -> Tensor:
        if norm == "2":
            return (images + epsilon * change / change.flatten(1).norm(dim=1).clamp_min(1)[:, None, None, None]).clamp(
                0, 1
            )
        return (images + epsilon * change.clamp(-1, 1)).clamp(0, 1)

    for number in range(POINTS):
        change = torch.randn(images.shape, generator=draw)
        yield onto(change.sign() if norm == "inf" and number % 2 else 3 * change)
    for rival in range(len(CLASSES)):
        change = torch.zeros_like(images)
        for _ in range(STEPS):
            change.requires_grad_()
            (slope,) = torch.autograd.grad(true(model, onto(change), labels)[:, rival].sum(), change)
            change = (change - (0.4 * slope.sign() if norm == "inf" else 5 * slope)).detach()
            yield onto(change)


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(number=st.integers(0, 10_000), epsilon=st.sampled_from([0.003, 0.03, 0.3]))
def test_no_point_of_a_ball_has_a_smaller_margin_than_its_bound(name: str, norm: str, number: int, epsilon: float):
    model, images = network(name, number), photographs(number)
    labels = torch.arange(len(images)) % len(CLASSES)
    found = {each: margins(model, images, labels, epsilon, method=each, norm=norm, steps=5) for each in METHODS}
    least = torch.full_like(found["ibp"], torch.inf)
    for points in moved(model, images, labels, epsilon, norm):
        least = torch.minimum(least, true(model, points, labels).detach())
    for method, bound in found.items():
        assert (bound <= least + ROUNDING * (1 + least.abs())).all(), method
    assert (found["alpha_crown"] >= found["crown"] - 1e-6).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_dearer_methods_are_tighter_on_average(name: str):
    means = dict.fromkeys(METHODS, 0.0)
    for number in range(4):
        model, images = network(name, number), photographs(number)
        labels = model(images).argmax(1)
        for method in METHODS:
            means[method] += float(margins(model, images, labels, 0.02, method=method).detach().mean())
    assert means["ibp"] < means["crown_ibp"] <= means["crown"] < means["alpha_crown"]


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_ball_of_no_radius_has_the_margins_themselves(name: str, method: str, norm: str):
    model, images = network(name), photographs()
    labels = torch.tensor([0, 1, 2, 1])
    found = margins(model, images, labels, 0.0, method=method, norm=norm)
    assert torch.allclose(found, true(model, images, labels), atol=1e-5)
    assert (found.gather(1, labels[:, None]) == 0).all()


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("method", ["ibp", "crown_ibp", "crown"])
def test_larger_balls_have_smaller_bounds(method: str, norm: str):
    """Always with intervals; with linear bounds on these networks, whose slopes jump only a little."""
    model, images = network("strided"), photographs()
    labels = model(images).argmax(1)
    found = [margins(model, images, labels, radius, method=method, norm=norm) for radius in (0.0, 0.02, 0.05, 0.1, 0.3)]
    for small, large in pairwise(found):
        slack = 1e-6 if method == "ibp" else 0.05 * float(small.detach().abs().max())
        assert (large <= small + slack).all()


def test_radii_may_differ_from_image_to_image():
    model, images = network("residual"), photographs()
    labels, radii = model(images).argmax(1), torch.tensor([0.0, 0.01, 0.02, 0.05])
    for method in METHODS:
        together = margins(model, images, labels, radii, method=method, steps=3)
        each = [
            margins(model, images[i : i + 1], labels[i : i + 1], float(radii[i]), method=method, steps=3)
            for i in range(4)
        ]
        assert torch.allclose(together, torch.cat(each), atol=1e-5)


def tiny(weights: list[list[float]] | None = None) -> StagedClassifier:
    """Two pixels, two hidden units, two classes."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Unflatten(1, (2, 1, 1)))
    with Seed(3).scoped():
        model = StagedClassifier([body], 2, ("no", "yes"), (0.0,), (1.0,))
    with torch.no_grad():
        body[1].weight.copy_(torch.tensor(weights or [[1.0, -1.0], [-1.0, 1.0]]))
        body[1].bias.zero_()
        model.linear.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, 0.5]]))
        model.linear.bias.copy_(torch.tensor([0.1, 0.0]))
    return model.eval()


def test_bounds_of_a_tiny_network_are_those_worked_out_by_hand():
    """margin = 2 relu(a) + relu(-a) / 2 + .1 with a = x - y, so for a in [-.2, .6] the least is .1, at a = 0."""
    model, image = tiny(), torch.tensor([0.6, 0.4]).view(1, 1, 1, 2)
    label = torch.tensor([0])
    grid = torch.linspace(0, 1, 81)
    points = torch.cartesian_prod(grid, grid)
    inside = points[((points - image.view(1, 2)).abs() <= 0.2 + 1e-6).all(1)].view(-1, 1, 1, 2)
    least = float(true(model, inside, torch.zeros(len(inside), dtype=torch.int64)).detach()[:, 1].min())
    assert least == pytest.approx(0.1, abs=1e-5)
    bound = {each: float(margins(model, image, label, 0.2, method=each).detach()[0, 1]) for each in METHODS}
    # intervals: both rectifiers are at least 0. CROWN: a in [-.2, .6] has slope 1, -a has slope 0, so 2 a + .1 at -.2
    assert bound["ibp"] == pytest.approx(0.1, abs=1e-6)
    assert bound["crown"] == pytest.approx(-0.3, abs=1e-6)
    assert bound["crown_ibp"] == pytest.approx(-0.3, abs=1e-6)
    assert bound["alpha_crown"] == pytest.approx(0.1, abs=1e-4)  # slope 0 for both is best


def weights(*shape: int) -> Tensor:
    return torch.randn(shape, generator=Seed(5).generator(), dtype=torch.float64)


LAYERS = {
    "scale": Scale(weights(4), weights(4)),
    "convolution": Convolution(weights(6, 4, 3, 3), weights(6), (1, 1), (1, 1), (1, 1), 1),
    "strided, dilated, in groups": Convolution(weights(6, 2, 3, 2), None, (2, 3), (1, 0), (1, 2), 2),
    "interleaved": Convolution(weights(6, 4, 4, 2), weights(6), (2, 2), (1, 1), (1, 1), 1),
    "interleaved, with an edge left over": Convolution(weights(6, 4, 3, 3), None, (3, 3), (0, 0), (1, 1), 1),
    "1x1 with a stride": Convolution(weights(6, 4, 1, 1), weights(6), (2, 2), (0, 0), (1, 1), 1),
    "pooling": Pooling((2, 3), (2, 3), (0, 0), 6),
    "overlapping pooling": Pooling((3, 3), (2, 1), (1, 1), 9),
    "flatten": Reshape(torch.Size((4 * 9 * 8,))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_its_transpose_and_its_spread_belong_together(name: str):
    """<W x + b, a> = <x, W' a> + b a; |W| and W squared are those of W as a matrix."""
    layer, images = LAYERS[name], weights(3, 4, 9, 8)
    outputs = layer.apply(images)
    coefficients = weights(5, *outputs.shape[1:])
    back = layer.transpose(coefficients, images.shape[1:])
    offset = layer.offset(coefficients)
    one = coefficients.flatten(1) @ outputs.flatten(1).T
    other = back.flatten(1) @ images.flatten(1).T + (0 if offset is None else offset[:, None])
    assert torch.allclose(one, other)
    zero = torch.zeros(1, 4, 9, 8, dtype=torch.float64)
    unit = torch.eye(zero.numel(), dtype=torch.float64).view(-1, *zero.shape[1:])
    matrix = (layer.apply(unit) - layer.apply(zero)).flatten(1)
    for power in (1, 2):
        spread = layer.spread(images.abs(), power).flatten(1)
        assert torch.allclose(spread, images.abs().flatten(1) @ matrix.abs().pow(power))


def linear_model() -> Classifier:
    with Seed(4).scoped():
        return Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(2 * 6 * 6, 3)), CLASSES, (0.5,), (0.25,)).eval()


@pytest.mark.parametrize("method", METHODS)
def test_bounds_of_a_linear_model_are_its_distance_from_the_boundary(method: str):
    model, images = linear_model(), photographs().clamp(0.2, 0.8)
    labels = model(images).argmax(1)
    weight = model.head.weight[labels][:, None] - model.head.weight
    exact = true(model, images, labels)
    l2, linf = weight.norm(dim=2) * 0.1 / 0.25, weight.abs().sum(2) * 0.1 / 0.25
    assert torch.allclose(margins(model, images, labels, 0.1, method=method, norm="2"), exact - l2, atol=1e-5)
    assert torch.allclose(margins(model, images, labels, 0.1, method=method), exact - linf, atol=1e-5)


def test_a_ball_stays_within_the_range_of_pixels():
    model, images = linear_model(), torch.zeros(1, 2, 6, 6)
    label = model(images).argmax(1)
    weight = (model.head.weight[label][:, None] - model.head.weight) / 0.25
    expected = true(model, images, label) + 0.1 * weight.clamp(max=0).sum(2)
    for norm in ("inf", "2"):
        found = margins(model, images, label, 0.1, method="ibp", norm=norm)
        assert (found >= expected - 1e-5).all()
        assert norm == "2" or torch.allclose(found, expected, atol=1e-5)


def test_linear_bounds_of_every_activation_hold_and_are_no_wider_than_intervals():
    model, images = network("residual"), photographs()
    whole = read(model, (2, 6, 6), detached=True)
    region = ball(images, 0.05, "inf")
    wide, tight = propagate(whole, region), tightened(whole, region)
    assert len(tight) == 4
    for number, lines in tight.items():
        source = wide[whole.nodes[number].sources[0]]
        assert (lines.unstable <= ((source.lower < 0) & (source.upper > 0))).all()
    last = max(tight)
    source = wide[whole.nodes[last].sources[0]]
    assert int(tight[last].unstable.sum()) < int(((source.lower < 0) & (source.upper > 0)).sum())


@pytest.mark.parametrize("method", ["ibp", "crown_ibp"])
def test_gradients_reach_all_weights_and_are_those_of_finite_differences(method: str):
    model, images = network("strided").double(), photographs().double()
    labels = torch.tensor([0, 1, 2, 1])

    def total() -> Tensor:
        return margins(model, images, labels, 0.02, method=method).sum()

    total().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    for parameter in (model.blocks[0][0].weight, model.blocks[0][1].bias, model.linear.weight):
        place, step = (0,) * parameter.ndim, 1e-6
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                parameter[place] += sign * step
                ends.append(float(total()))
                parameter[place] -= sign * step
        assert float(parameter.grad[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-5)


def test_other_methods_leave_no_gradient_and_need_none():
    model = network("dense")
    for method in ("crown", "alpha_crown"):
        found = margins(model, photographs(), torch.tensor([0, 1, 2, 1]), 0.1, method=method)
        assert not found.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def wrapped(*layers: nn.Module) -> Classifier:
    with Seed(0).scoped():
        return Classifier.wrap(nn.Sequential(*layers), CLASSES).eval()


def test_a_network_with_max_pooling_has_intervals_only():
    model = wrapped(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    images, labels = photographs(), torch.tensor([0, 1, 2, 1])
    bound = margins(model, images, labels, 0.05, method="ibp")
    for points in moved(model, images, labels, 0.05, "inf"):
        assert (bound <= true(model, points, labels) + ROUNDING).all()
    for method in METHODS[1:]:
        with pytest.raises(SettingError, match=r"module\.1.*MaxPool2d.*\[ibp\]"):
            margins(model, images, labels, 0.05, method=method)


class Rectified(nn.BatchNorm2d):
    """Normalises and rectifies in one module, as timm's do."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - its name
        return super().forward(input).relu()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Conv2d(2, 4, 6), nn.GELU(), nn.Flatten(), nn.Linear(4, 3)], r"module\.1.*GELU"),
        ([nn.Conv2d(2, 4, 6), nn.Sequential(nn.Tanh()), nn.Flatten(), nn.Linear(4, 3)], r"module\.1\.0.*Tanh"),
        ([nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(144, 3)], "reflect"),
        ([nn.Conv2d(2, 4, 2, padding="same"), nn.Flatten(), nn.Linear(144, 3)], "'same'"),
        ([nn.AvgPool2d(4, ceil_mode=True), nn.Flatten(), nn.Linear(8, 3)], "ceil_mode"),
        ([nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32, 3)], "4x4 does not divide"),
        ([nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(72, 3)], "BatchNorm2d"),
        ([Rectified(2), nn.Flatten(), nn.Linear(72, 3)], r"module\.0.*Rectified"),
        ([nn.Linear(6, 2), nn.Flatten(), nn.Linear(24, 3)], r"module\.0.*feature maps of 2x6x6.*Flatten"),
        ([nn.Flatten(), nn.Linear(72, 3), nn.Softmax(1)], "follows the head"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_bounds_do_not_go_through_is_refused_by_name(layers: list[nn.Module], message: str):
    with pytest.raises(SettingError, match=message):
        margins(wrapped(*layers), photographs(), torch.tensor([0, 1, 2, 1]), 0.1, method="ibp")


def test_networks_with_a_way_of_their_own_are_refused_by_name():
    class Own(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs).abs()

    images, labels = photographs(), torch.tensor([0, 1, 2, 1])
    own = Classifier.wrap(Own(nn.Flatten(), nn.Linear(72, 3)), CLASSES).eval()
    with pytest.raises(SettingError, match="Own"):
        margins(own, images, labels, 0.1, method="ibp")
    squeezed = SmallSENet().build((2, 6, 6), CLASSES, Seed(0)).eval()
    with pytest.raises(SettingError, match="blocks"):
        margins(squeezed, images, labels, 0.1, method="ibp")
    hooked = wrapped(nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, 3))
    handle = hooked.get_submodule("module.1").register_forward_hook(lambda _, __, output: output + 1)
    with pytest.raises(SettingError, match=r"hook.*module\.1.*Linear"):
        margins(hooked, images, labels, 0.1, method="ibp")
    handle.remove()
    assert margins(hooked, images, labels, 0.1, method="ibp").shape == (4, 3)
    model = network("dense")
    model.linear = nn.Sequential(nn.Linear(7, 3))
    with pytest.raises(SettingError, match=r"head is a Sequential.*nn\.Linear"):
        margins(model, images, labels, 0.1, method="ibp")


def test_wrong_methods_and_radii_are_mistakes():
    model, images, labels = network("dense"), photographs(), torch.tensor([0, 1, 2, 1])
    with pytest.raises(SettingError, match=r"-0\.1"):
        margins(model, images, labels, -0.1, method="ibp")


def test_bezoar_s_residual_network_is_bounded():
    model = SmallResNet().build((2, 6, 6), CLASSES, Seed(0)).eval()
    images, labels = photographs(), torch.tensor([0, 1, 2, 1])
    for method in METHODS:
        bound = margins(model, images, labels, 0.001, method=method, steps=2)
        assert (bound <= true(model, images, labels) + ROUNDING).all()
