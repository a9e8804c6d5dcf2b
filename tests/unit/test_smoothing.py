"""Randomized smoothing: the published vectors, a model whose true radius is known, and the guarantee itself."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

from bezoar.certifiers.smoothing import Smoothing, predict
from bezoar.component import build
from bezoar.errors import DataError, ModelFileError, SettingError
from bezoar.lab import Lab
from bezoar.measure.smoothed import certified_radius, draws_needed, largest_radius, lower_bound, majority_p_value
from bezoar.models.classifier import Classifier
from bezoar.seed import Seed
from bezoar.testing.watch import nothing_global_changes, other_generators, require_unchanged, state

SHAPE = (1, 4, 4)
SEED = Seed(3)


class Halves(Classifier):
    """Two classes divided by a hyperplane: under noise the first has probability Phi(distance / sigma) exactly."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(("right", "left"), (0.0,), (1.0,))
        self.linear = nn.Linear(16, 2)
        self.rows: list[int] = []
        normal = torch.randn(16, generator=SEED.generator())
        with torch.no_grad():
            self.linear.weight.copy_(torch.stack([normal, -normal]) * scale)
            self.linear.bias.zero_()
        self.normal = normal / normal.norm()

    @property
    def head(self) -> nn.Module:
        return self.linear

    def features(self, images: Tensor) -> Tensor:
        self.rows.append(len(images))
        return self.normalise(images - 0.5).flatten(1)

    def trace(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        return [], self(images)

    def at(self, distances: list[float]) -> Float[Tensor, "n 1 4 4"]:
        """Images at these signed distances from the hyperplane."""
        return (0.5 + torch.tensor(distances)[:, None] * self.normal).view(-1, *SHAPE)


@pytest.fixture
def halves() -> Halves:
    return Halves().eval()


def test_the_published_vectors_of_the_lower_bound():
    assert lower_bound(1000, 1000, 0.001) == pytest.approx(0.993116, abs=1e-6)
    assert lower_bound(999, 1000, 0.001) == pytest.approx(0.990805, abs=1e-6)
    assert lower_bound(550, 1000, 0.001) == pytest.approx(0.500676, abs=1e-6)
    assert lower_bound(549, 1000, 0.001) < 0.5
    assert lower_bound(66, 100, 0.001) > 0.5 > lower_bound(65, 100, 0.001)
    assert lower_bound(0, 1000, 0.001) == 0


@pytest.mark.parametrize(("draws", "cap"), [(1000, 2.4633), (10_000, 3.199), (100_000, 3.812)])
def test_the_published_caps_of_the_radius(draws: int, cap: float):
    assert largest_radius(draws, 0.001, 1.0) == pytest.approx(cap, abs=6e-4)
    assert largest_radius(draws, 0.001, 0.25) == pytest.approx(cap / 4, abs=2e-4)


@pytest.mark.parametrize("draws", [1, 7, 100, 1000, 100_000])
@pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.05])
def test_the_lower_bound_is_scipys_exact_one_sided_interval(draws: int, alpha: float):
    for hits in sorted({0, 1, draws // 3, draws // 2, draws - 1, draws} & set(range(draws + 1))):
        interval: Any = stats.binomtest(hits, draws, alternative="greater").proportion_ci(1 - alpha, "exact")
        assert lower_bound(hits, draws, alpha) == pytest.approx(float(interval.low), abs=1e-9)


@pytest.mark.parametrize("alpha", [1e-12, 0.001, 0.05])
@pytest.mark.parametrize("radius", [0.0, 0.1, 0.25, 0.9])
def test_the_draws_needed_are_enough_and_one_fewer_are_not(alpha: float, radius: float):
    needed = draws_needed(radius, alpha, 0.25)
    assert needed is not None
    assert largest_radius(needed, alpha, 0.25) >= max(radius, 1e-12)
    assert largest_radius(needed - 1, alpha, 0.25) < max(radius, 1e-12)


def test_no_number_of_draws_proves_a_radius_of_a_hundred_sigmas():
    assert draws_needed(25.0, 0.001, 0.25) is None


def test_the_vote_of_predict_is_the_two_sided_test_by_hand():
    """Second route: the sum of the binomial's terms that are no likelier, by symmetry twice a tail."""
    tail = sum(math.comb(100, hits) for hits in range(66, 101)) / 2**100
    assert majority_p_value(66, 34) == pytest.approx(2 * tail)
    assert majority_p_value(5, 5) == 1
    assert majority_p_value(0, 0) == 1


def test_the_radius_of_a_half_plane_is_approached_and_never_exceeded(halves: Halves):
    distances = [0.05, 0.1, 0.2, 0.3, 0.4, -0.1, -0.3]
    found = Smoothing(draws=4000).certify(halves, halves.at(distances), Lab(), SEED)
    truth = torch.tensor(distances, dtype=torch.float64).abs()
    assert found.predicted.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert bool((found.radius <= truth).all())
    assert bool((found.radius >= 0.85 * truth - 0.02).all())
    assert found.certified.tolist() == (found.radius >= 0.25).tolist() == [False, False, False, True, True, False, True]
    assert torch.allclose(found.radius, 0.25 * torch.special.ndtri(found.evidence))
    assert found.method.tolist() == [0] * 7
    assert (found.methods, found.norm) == (("smoothing",), "2")


def test_more_draws_bring_the_radius_nearer_to_the_truth(halves: Halves):
    few, many = (
        Smoothing(draws=draws, batch_size=4096).certify(halves, halves.at([0.3]), Lab(), SEED).radius
        for draws in (200, 50_000)
    )
    assert float(few) < float(many) < 0.3
    assert float(many) > 0.295


def test_it_abstains_where_the_votes_are_nearly_even(halves: Halves):
    images = halves.at([0.0, 0.002, -0.002, 0.25])
    found = Smoothing().certify(halves, images, Lab(), SEED)
    assert found.predicted.tolist() == [-1, -1, -1, 0]
    assert found.radius[:3].tolist() == [0, 0, 0]
    assert not found.certified[:3].any()
    assert found.method.tolist() == [-1, -1, -1, 0]
    assert bool((found.evidence[:3] <= 0.5).all())
    assert predict(halves, images, smoothing=Smoothing(), lab=Lab(), seed=SEED).tolist() == [-1, -1, -1, 0]


def test_certificates_beyond_the_truth_and_wrong_answers_are_as_rare_as_alpha_says(halves: Halves):
    """At alpha = .1, where the bound is tight: over 600 repetitions a share of .1, and few more by chance."""
    images = halves.at([0.1] * 600)
    smoothing = Smoothing(draws=100, selection=20, alpha=0.1, radius=0.01)
    found = smoothing.certify(halves, images, Lab(), SEED)
    beyond = int(((found.radius > 0.1) | (found.predicted == 1)).sum())
    assert beyond <= stats.binom.ppf(0.999, 600, 0.1)
    assert beyond >= 0.04 * 600  # the bound is no wider than it must be
    even = predict(halves, halves.at([0.0] * 600), smoothing=smoothing, lab=Lab(), seed=SEED)
    assert (even == 1).sum() <= stats.binom.ppf(0.999, 600, 0.1)
    assert 0 < (even != -1).sum() <= stats.binom.ppf(0.999, 600, 0.1)


@pytest.mark.parametrize("batch_size", [1, 5, 31, 32, 100, 4096])
def test_the_batch_size_bounds_the_rows_and_does_not_change_the_answer(halves: Halves, batch_size: int):
    images = halves.at([0.02, 0.15, 0.3])
    expected = Smoothing(draws=333).certify(halves, images, Lab(), SEED)
    halves.rows.clear()
    found = Smoothing(draws=333, batch_size=batch_size).certify(halves, images, Lab(), SEED)
    assert max(halves.rows) <= batch_size
    assert sum(halves.rows) == 3 * (100 + 333)
    assert torch.equal(found.evidence, expected.evidence)
    assert torch.equal(found.radius, expected.radius)


def test_the_noise_has_the_right_size_is_not_clipped_and_is_never_used_twice(halves: Halves):
    seen: list[Tensor] = []
    halves.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    image = torch.rand(1, *SHAPE, generator=SEED.generator())
    Smoothing(sigma=0.5, draws=2000).certify(halves, torch.cat([image, image]), Lab(), SEED)
    noise = (torch.cat(seen) - image).flatten(1)
    assert len(noise) == 2 * 2100
    assert len(noise[:, 0].unique()) > 4190
    assert stats.kstest(noise.flatten().numpy() / 0.5, "norm").pvalue > 0.001
    assert torch.cat(seen).min() < -1


def test_an_image_has_the_same_certificate_whatever_stands_after_it(halves: Halves):
    images = halves.at([0.1, 0.2, 0.3])
    all_of_them = Smoothing().certify(halves, images, Lab(), SEED)
    first = Smoothing().certify(halves, images[:2], Lab(), SEED)
    assert torch.equal(all_of_them.evidence[:2], first.evidence)
    assert not torch.equal(first.evidence, Smoothing().certify(halves, images[:2], Lab(), Seed(4)).evidence)


def test_model_and_global_state_are_left_alone(halves: Halves):
    halves.linear.requires_grad_(False)  # a layer with a flag of its own
    before = state(halves)
    with nothing_global_changes():
        one = Smoothing().certify(halves, halves.at([0.1]), Lab(), SEED)
        predict(halves, halves.at([0.1]), smoothing=Smoothing(), lab=Lab(), seed=SEED)
    with other_generators():
        two = Smoothing().certify(halves, halves.at([0.1]), Lab(), SEED)
    require_unchanged(before, state(halves), "the model's ")
    assert torch.equal(one.evidence, two.evidence)


def test_progress_counts_the_images(halves: Halves):
    counted: deque[tuple[str, int]] = deque()

    class Counting:
        def track(self, items: Any, name: str, total: int) -> Any:
            for item in items:
                counted.append((name, total))
                yield item

    Smoothing(draws=100, radius=0.1).certify(halves, halves.at([0.1, 0.2]), Lab(progress=Counting()), SEED)
    assert list(counted) == [("smoothing", 2)] * 2


def test_no_images_have_no_certificates(halves: Halves):
    found = Smoothing().certify(halves, torch.zeros(0, *SHAPE), Lab(), SEED)
    assert len(found) == 0
    assert found.predicted.dtype == torch.int64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0}, "sigma: .*greater than 0"),
        ({"sigma": -0.1}, "sigma"),
        ({"alpha": 0}, "alpha"),
        ({"draws": 50}, "draws: .*greater than or equal to 100"),
        ({"radius": 0}, "radius"),
        ({"batch_size": 0}, "batch_size"),
        (
            {"draws": 100, "radius": 0.45},
            "draws: 100 can prove a radius of at most 0.3751.*radius=0.45.*draws=189 would",
        ),
        ({"alpha": 1e-40, "draws": 100, "radius": 0.01}, "at most 0 .*draws=1[34][0-9] would do"),
        ({"radius": 25}, "no practical number of draws would do, or raise sigma"),
    ],
)
def test_settings_that_prove_nothing_are_refused_with_the_remedy(settings: dict[str, float], message: str):
    with pytest.raises(SettingError, match=message):
        build(Smoothing, settings)


def test_the_draws_that_an_error_names_would_do():
    assert build(Smoothing, {"draws": 189, "radius": 0.45}).demanded == 0.45
    with pytest.raises(SettingError, match="188 can prove"):
        build(Smoothing, {"draws": 188, "radius": 0.45})


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_images_outside_the_unit_interval_are_refused_by_place(halves: Halves, value: float):
    images = halves.at([0.1, 0.1])
    images[1, 0, 0, 0] = value
    with pytest.raises(DataError, match=r"image 1 has the value .* \[0, 1\]"):
        Smoothing().certify(halves, images, Lab(), SEED)


def test_a_model_in_training_mode_is_refused(halves: Halves):
    with pytest.raises(SettingError, match="training mode"):
        Smoothing().certify(halves.train(), halves.at([0.1]), Lab(), SEED)
    with pytest.raises(SettingError, match="training mode"):
        predict(halves, halves.at([0.1]), smoothing=Smoothing(), lab=Lab(), seed=SEED)


def test_a_model_whose_logits_are_no_numbers_gets_no_certificate():
    with pytest.raises(ModelFileError, match="not all finite"):
        Smoothing().certify(Halves(math.nan).eval(), Halves().at([0.1]), Lab(), SEED)


def test_a_share_of_at_most_a_half_has_no_radius():
    assert certified_radius(0.5, 0.25) == 0
    assert certified_radius(0.2, 0.25) == 0
    assert certified_radius(0.0, 0.25) == 0
