"""Training for certificates: schedules, the mixed loss, and noise for smoothing."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from bezoar.bounds.margins import margins
from bezoar.certifiers.bounds import Bounds
from bezoar.component import build, digest
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.convolutional import Convolutional
from bezoar.models.python_function import PythonFunction
from bezoar.records import Dataset, as_float
from bezoar.roles import Trainer
from bezoar.seed import Seed
from bezoar.testing import toy
from bezoar.training.batches import batches, noisy
from bezoar.training.certified import BEND, CrownTraining, IntervalTraining, initialise, smooth
from bezoar.training.sgd import Sgd
from bezoar.training.steps import cross_entropy, steps

CPU = torch.device("cpu")


def squares(count: int = 96) -> Dataset:
    """8x8 images, one half of which is bright."""
    labels = torch.arange(count) % 2
    images = torch.randint(60, (count, 1, 8, 8), generator=Seed(0).generator(), dtype=torch.uint8)
    images[labels == 0, :, :4] += 190
    images[labels == 1, :, 4:] += 190
    return Dataset.in_memory(images, labels, ("above", "below"))


def test_the_radius_rises_smoothly_from_nothing_to_all():
    places = [number / 2000 for number in range(2001)]
    values = torch.tensor([smooth(place) for place in places], dtype=torch.float64)
    slopes = values.diff() * 2000
    assert values[0] == 0
    assert values[-1] == pytest.approx(1)
    assert (slopes >= 0).all()
    assert slopes.diff().abs().max() < 0.02  # no kink
    quarter = values[round(BEND * 2000)]
    assert values[round(BEND * 1000)] == pytest.approx(float(quarter) / 16)  # the fourth power of a half
    assert slopes[-1] == pytest.approx(float(slopes[1000]), rel=1e-6)  # a straight line


def test_phases_are_shares_of_the_run():
    recipe = IntervalTraining(warm_up=0.2, ramp=0.5)
    assert [recipe.ramped(place) for place in (0.0, 0.2, 0.45, 0.7, 0.99)] == pytest.approx([0, 0, 0.5, 1, 1])
    at_once = IntervalTraining(warm_up=0, ramp=0)
    assert at_once.ramped(0.0) == 1
    with pytest.raises(SettingError, match="more than all of it"):
        build(Trainer, {"kind": "ibp", "warm_up": 0.6, "ramp": 0.6})


@pytest.mark.parametrize("place", [0.0, 0.45, 0.9])
def test_the_loss_is_the_published_mixture(place: float):
    model = Convolutional().build((1, 8, 8), ("above", "below"), Seed(0))
    batch = next(batches(squares(), 16, Seed(1), device=CPU))
    radius, kappa = 0.1 * smooth({0.0: 0.0, 0.45: 0.5, 0.9: 1.0}[place]), {0.0: 1.0, 0.45: 0.6, 0.9: 0.2}[place]
    plain = functional.cross_entropy(model(batch.images), batch.labels)
    loose = margins(model, batch.images, batch.labels, radius, method="ibp")
    tight = margins(model, batch.images, batch.labels, radius, method="crown_ibp")
    beta = 1 - radius / 0.1
    for recipe, bound in ((IntervalTraining, loose), (CrownTraining, beta * tight + (1 - beta) * loose)):
        # the true class has logit 0, and every other minus its margin
        columns = torch.cat([torch.zeros(16, 1), -bound.gather(1, 1 - batch.labels[:, None])], dim=1)
        worst = functional.cross_entropy(columns, torch.zeros(16, dtype=torch.int64))
        loss = recipe(kappa=0.2, warm_up=0.2, ramp=0.5).loss(model, batch, place)
        assert float(loss.detach()) == pytest.approx(float((kappa * plain + (1 - kappa) * worst).detach()), rel=1e-5)


@pytest.mark.parametrize("recipe", [IntervalTraining, CrownTraining])
def test_certified_training_certifies_what_plain_training_does_not(recipe: type[IntervalTraining | CrownTraining]):
    data, certifier = squares(), Bounds(epsilon=0.1, methods=("ibp",))
    images = as_float(data.images())
    trainer = recipe(epochs=12, batch_size=16, lr=2e-3, kappa=0.5, warm_up=0.1, ramp=0.5)
    plain = Sgd(epochs=4, batch_size=16, lr=0.05, augmentation="none")
    rates = []
    for each in (trainer, plain):
        model = each.train(Convolutional(), data, Lab(), Seed(0))
        assert (model(images).argmax(1) == data.labels).float().mean() >= 0.95
        rates.append(float(certifier.certify(model, images, Lab(), Seed(0)).certified.float().mean()))
    assert rates[0] >= 0.9
    assert rates[1] <= 0.2


def pooled(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 49, num_classes))


def test_max_pooling_can_be_trained_with_intervals_only():
    network = PythonFunction(target=f"{__name__}:pooled")
    IntervalTraining(epochs=1, batch_size=32).train(network, toy.dataset(), Lab(), Seed(0))
    with pytest.raises(SettingError, match="MaxPool2d"):
        CrownTraining(epochs=1, batch_size=32).train(network, toy.dataset(), Lab(), Seed(0))


def test_the_initialisation_for_intervals_has_the_published_spread():
    model = nn.Sequential(nn.Conv2d(16, 64, 3), nn.Flatten(), nn.Linear(500, 300))
    with Seed(0).scoped():
        initialise(model)
    assert float(model[0].weight.std()) == pytest.approx(math.sqrt(2 * math.pi) / (16 * 9), rel=0.05)
    assert float(model[2].weight.std()) == pytest.approx(math.sqrt(2 * math.pi) / 500, rel=0.05)


def test_gradients_are_scaled_down_to_the_norm_that_is_given():
    moved = []
    for clip in (None, 1e-3, 1e6):
        model = Convolutional().build((1, 8, 8), ("above", "below"), Seed(0))
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        optimizer = torch.optim.SGD(model.parameters(), 1.0)
        stream = batches(squares(), 16, Seed(1), device=CPU)
        next(steps(model, stream, cross_entropy, optimizer, seed=Seed(2), clip=clip))
        moved.append(nn.utils.parameters_to_vector(model.parameters()).detach() - before)
    assert float(moved[1].norm()) == pytest.approx(1e-3, rel=1e-3)
    assert torch.allclose(functional.cosine_similarity(moved[0], moved[1], dim=0), torch.tensor(1.0), atol=1e-4)
    assert torch.equal(moved[0], moved[2])


def test_noise_is_gaussian_unclipped_and_new_for_every_image_and_step():
    data = squares()
    plain = list(batches(data, 32, Seed(1), device=CPU, epochs=2))
    loud = list(
        noisy(
            iter(plain),
            0.5,
            Seed(2),
        )
    )
    noise = [after.images - before.images for before, after in zip(plain, loud, strict=True)]
    every = torch.cat(noise)
    assert float(every.mean()) == pytest.approx(0, abs=0.01)
    assert float(every.std()) == pytest.approx(0.5, rel=0.02)
    assert float(torch.cat([batch.images for batch in loud]).min()) < -0.5
    assert len({tuple(image.flatten()[:3].tolist()) for image in every}) == len(every)
    assert all(torch.equal(before.labels, after.labels) for before, after in zip(plain, loud, strict=True))
    again = noisy(iter(plain), 0.5, Seed(2))
    assert torch.equal(next(again).images, loud[0].images)


def test_noise_changes_training_and_no_address_without_it():
    data, recipe = squares(), Sgd(epochs=2, batch_size=16, augmentation="none")
    assert "noise" not in recipe.identity()
    assert digest(recipe.identity()) == digest(Sgd(epochs=2, batch_size=16, augmentation="none", noise=0).identity())
    loud = recipe.replace(noise=0.25)
    assert digest(loud.identity()) != digest(recipe.identity())
    quiet, other = (each.train(Convolutional(), data, Lab(), Seed(0)) for each in (recipe, loud))
    assert not torch.equal(quiet.linear.weight, other.linear.weight)
