"""The certifier by bounds: its cascade, its radii, and what it refuses."""

import pytest
import torch
from torch import Tensor, nn

from bezoar.bounds.margins import margins
from bezoar.certifiers.bounds import Bounds
from bezoar.component import build
from bezoar.errors import DataError, SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.roles import Certifier
from bezoar.seed import Seed
from bezoar.testing.watch import require_unchanged, state

CLASSES = ("a", "b", "c")
EVERY = ("ibp", "crown_ibp", "crown", "alpha_crown")


def network(pooling: nn.Module | None = None) -> Classifier:
    with Seed(2).scoped():
        layers = [nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), pooling or nn.Identity(), nn.Flatten()]
        model = nn.Sequential(*layers, nn.LazyLinear(12), nn.ReLU(), nn.Linear(12, 3))
        model(torch.zeros(1, 1, 8, 8))
        return Classifier.wrap(model, CLASSES, (0.5,), (0.25,)).eval()


def photographs(count: int = 40) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=Seed(1).generator())


def linear() -> Classifier:
    with Seed(3).scoped():
        return Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), ("a", "b")).eval()


def certified(model: Classifier, images: Tensor, **settings: object):
    certifier = build(Certifier, {"kind": "bounds", **settings})
    return certifier.certify(model, images, Lab(), Seed(0))


def test_an_image_goes_on_only_until_it_is_certified():
    model, images = network(), photographs()
    labels = model(images).argmax(1)
    found = certified(model, images, epsilon=0.02, methods=EVERY)
    bounds = [
        margins(model, images, labels, 0.02, method=each).detach().scatter(1, labels[:, None], torch.inf).amin(1)
        for each in EVERY
    ]
    assert len(set(found.method.tolist())) >= 3  # the images are of every kind, or this would say nothing
    for image, method in enumerate(found.method.tolist()):
        passed = [float(each[image]) > 1e-6 for each in bounds]
        assert method == (passed.index(True) if any(passed) else -1)
        tried = bounds[: method + 1 if method >= 0 else None]
        assert float(found.evidence[image]) == pytest.approx(max(float(each[image]) for each in tried), abs=1e-4)
    assert torch.equal(found.certified, found.method >= 0)
    assert torch.equal(found.radius, torch.where(found.certified, 0.02, 0.0))
    assert torch.equal(found.predicted, labels)
    assert found.methods == EVERY


def test_more_methods_certify_no_less():
    model, images = network(), photographs()
    before = torch.zeros(len(images), dtype=torch.bool)
    for count in range(1, 5):
        now = certified(model, images, epsilon=0.02, methods=EVERY[:count]).certified
        assert (before <= now).all()
        before = now


@pytest.mark.parametrize("ball", ["inf", "2"])
@pytest.mark.parametrize("method", EVERY)
def test_the_radius_of_a_linear_model_is_its_distance_from_the_boundary(method: str, ball: str):
    """|w x + b| / ||w||, or / ||w||_1, up to the resolution of the bisection, and never more."""
    model, images = linear(), 0.4 + 0.2 * photographs()
    weight = (model.head.weight[0] - model.head.weight[1]).detach()
    logits = model(images).detach()
    exact = (logits[:, 0] - logits[:, 1]).abs() / (weight.norm() if ball == "2" else weight.abs().sum())
    usual, most = float(exact.median()) * 1.001, 1.1 * float(exact.max())
    found = certified(model, images, epsilon=usual, largest=most / usual, bisect=12, methods=[method], ball=ball)
    assert (found.radius <= exact + 1e-6).all()
    assert (found.radius >= exact - most / 2**11).all()
    assert torch.equal(found.certified, found.radius >= usual)
    assert found.certified.any()
    assert not found.certified.all()


def test_a_searched_radius_is_at_least_the_one_without_a_search():
    model, images = network(), photographs()
    plain = certified(model, images, epsilon=0.02)
    searched = certified(model, images, epsilon=0.02, bisect=4, largest=3)
    assert torch.equal(plain.certified, searched.certified)
    assert torch.equal(plain.evidence, searched.evidence)
    assert (searched.radius >= plain.radius).all()
    assert float(searched.radius.max()) > 0.02
    assert (searched.radius[~plain.certified] < 0.02).all()
    assert torch.equal(searched.method >= 0, searched.radius > 0)
    labels = searched.predicted
    for number, name in enumerate(searched.methods):
        rows = (searched.method == number).nonzero()[:, 0]
        found = margins(model, images[rows], labels[rows], searched.radius[rows], method=name).detach()
        assert (found.scatter(1, labels[rows][:, None], 1) > 0).all()


def test_batches_change_nothing():
    model, images = network(), photographs()
    whole, parts = certified(model, images, epsilon=0.02), certified(model, images, epsilon=0.02, batch_size=7)
    assert torch.equal(whole.certified, parts.certified)
    assert torch.allclose(whole.evidence, parts.evidence, atol=1e-5)


def test_a_tie_is_no_certificate():
    model = linear()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = certified(model, photographs(), epsilon=1e-9)
    assert not found.certified.any()
    assert (found.predicted == 0).all()


def test_max_pooling_is_refused_by_name_unless_intervals_are_asked_for():
    model, images = network(nn.MaxPool2d(2)), photographs(4)
    assert len(certified(model, images, methods=["ibp"])) == 4
    with pytest.raises(SettingError, match=r"module\.2.*MaxPool2d.*methods: \[ibp\]"):
        certified(model, images, methods=["ibp", "crown"])


def test_a_layer_that_is_not_known_is_refused_by_name():
    with pytest.raises(SettingError, match=r"module\.2.*Sigmoid"):
        certified(network(nn.Sigmoid()), photographs(4))


@pytest.mark.parametrize("value", [1.01, -0.01, float("nan")])
def test_images_outside_the_range_are_refused_with_their_value(value: float):
    images = photographs(4)
    images[2, 0, 3, 3] = value
    with pytest.raises(DataError, match=rf"image 2 has the value {value}, outside"):
        certified(network(), images)


def test_a_model_in_training_mode_is_refused_with_the_layer():
    model = network()
    model.module[1].train()
    with pytest.raises(SettingError, match=r"training mode \(module\.1\).*eval"):
        certified(model, photographs(4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": -0.1}, "-0.1"),
        ({"ball": "1"}, "ball"),
        ({"methods": []}, "methods"),
        ({"methods": ["ibp", "ibp"]}, "twice"),
        ({"methods": ["milp"]}, "methods"),
        ({"largest": 1}, "largest"),
        ({"bisect": -1}, "bisect"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_mistakes(settings: dict, message: str):
    with pytest.raises(SettingError, match=message):
        build(Certifier, {"kind": "bounds", **settings})


def test_gradients_flags_and_modes_are_left_alone_by_every_method():
    model = network()
    before = state(model)
    with torch.enable_grad():
        found = certified(model, photographs(6), epsilon=0.05, methods=EVERY, bisect=2)
    require_unchanged(before, state(model))
    assert not found.evidence.requires_grad
    assert Bounds.deterministic
