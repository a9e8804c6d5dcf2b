"""The two detectors that need no clean image: the last layer at a glance, and the maximum margin."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from scipy.optimize import linprog
from torch import Tensor, nn

from bezoar.defenses.detectors.last_layer import LastLayer, indicators
from bezoar.defenses.detectors.maximum_margin import MaximumMargin, margins
from bezoar.measure.outliers import gamma_p_value, robust_z
from bezoar.models.classifier import Classifier
from bezoar.records import Trusted
from bezoar.seed import Seed
from bezoar.testing import toy

CLASSES = tuple("abcdef")
SHAPE = (1, 2, 3)
CHEAP = MaximumMargin(starts=4, steps=40)


def linear(rows: Tensor) -> Classifier:
    """A network that is its last layer: logits = rows @ pixels."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(rows.shape[1], len(rows), bias=False))
    network[1].weight.data = rows.clone()
    return Classifier.wrap(network, CLASSES).eval()


@pytest.fixture
def trusted() -> Trusted:
    images = torch.zeros(len(CLASSES), *SHAPE, dtype=torch.uint8)
    return Trusted(images, torch.arange(len(CLASSES)), CLASSES)


def test_on_a_linear_model_the_margin_is_the_largest_that_a_linear_programme_finds(trusted: Trusted):
    """Second route: the margin of a linear model is concave, and a linear programme gives its maximum over the cube."""
    rows = torch.randn(6, 6, generator=Seed(3).generator())
    found = CHEAP.replace(steps=600, lr=0.02).inspect(linear(rows), trusted, toy.lab(), Seed(0)).evidence["margin"]
    weights = rows.double().numpy()
    for label in range(6):
        rivals = [weights[other] - weights[label] for other in range(6) if other != label]
        # maximise t subject to (w_k - w_c) x + t <= 0 for every rival k and 0 <= x <= 1
        programme = linprog(
            [0.0] * 6 + [-1.0],
            A_ub=[[*rival, 1.0] for rival in rivals],
            b_ub=[0.0] * 5,
            bounds=[(0, 1)] * 6 + [(None, None)],
        )
        best = -programme.fun
        assert best - 0.05 * abs(best) - 0.02 <= float(found[label]) <= best + 1e-5


def test_a_class_that_inputs_can_push_far_up_scores_highest(trusted: Trusted):
    """Each class reads a pixel of its own, so its margin is that pixel's weight."""
    weights = torch.tensor([1.0, 1.1, 0.9, 1.05, 8.0, 0.95])
    seen = CHEAP.replace(steps=200).inspect(linear(weights.diag()), trusted, toy.lab(), Seed(0))
    assert torch.allclose(seen.evidence["margin"], weights, atol=0.01)
    assert seen.suspect == 4
    assert float(seen.evidence["p_value"][4]) < 0.001
    assert bool((seen.evidence["p_value"][torch.arange(6) != 4] == 1).all())


def test_scores_have_no_unit(trusted: Trusted):
    """Logits three times as large leave them alone, once the ascent has arrived."""
    weights = torch.tensor([1.0, 1.1, 0.9, 1.05, 8.0, 0.95]).diag()
    patient = CHEAP.replace(steps=200)
    one, three = (patient.inspect(linear(scale * weights), trusted, toy.lab(), Seed(0)).scores for scale in (1.0, 3.0))
    assert torch.allclose(one, three, rtol=0.02, atol=0.02)


def test_the_size_of_a_batch_changes_nothing(trusted: Trusted, monkeypatch: pytest.MonkeyPatch):
    model = linear(torch.randn(6, 6, generator=Seed(5).generator()))
    whole = CHEAP.inspect(model, trusted, toy.lab(), Seed(0)).evidence["margin"]
    monkeypatch.setattr("bezoar.defenses.detectors.maximum_margin.AT_ONCE", 5)
    assert torch.allclose(CHEAP.inspect(model, trusted, toy.lab(), Seed(0)).evidence["margin"], whole, atol=1e-5)


def test_margins_are_own_logit_minus_the_largest_other():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 7.0]])
    assert margins(logits, torch.tensor([0, 1])).tolist() == [1.0, -2.0]


def test_the_gamma_test_is_liberal_under_its_own_null_and_finds_what_is_far():
    """What its docstring says; the audit's test, with the same values, keeps its level."""
    draws = stats.gamma.rvs(6.0, scale=2.0, size=(400, 20), random_state=0)
    rate = sum(gamma_p_value(torch.tensor(row)) < 0.1 for row in draws) / 400
    assert 0.2 < rate < 0.4
    far = draws.copy()
    far[:, 0] = 80.0
    assert all(gamma_p_value(torch.tensor(row)) < 1e-3 for row in far)


def test_the_gamma_test_is_what_scipy_s_distribution_says_of_the_largest():
    values = torch.tensor([2.0, 3.0, 2.5, 4.0, 3.5, 9.0])
    shape, _, scale = stats.gamma.fit(values[:5].numpy(), floc=0)
    expected = 1 - stats.gamma.cdf(9.0, shape, scale=scale) ** 6
    assert gamma_p_value(values) == pytest.approx(expected, rel=1e-6)


def test_the_gamma_test_says_nothing_where_there_is_nothing_to_compare_with():
    assert gamma_p_value(torch.tensor([1.0, 2.0, 9.0])) == 1.0
    assert gamma_p_value(torch.tensor([1.0, 1.0, 1.0, 9.0])) == 1.0
    assert gamma_p_value(torch.tensor([-1.0, 1.0, 2.0, 9.0])) == 1.0
    assert gamma_p_value(torch.tensor([5.0, 5.0000005, 5.0, 9.0])) == 1.0
    assert gamma_p_value(torch.tensor([5.0, float("nan"), 4.0, 9.0])) == 1.0


def test_robust_deviations_ignore_the_outlier_that_they_find():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 100.0])
    assert torch.allclose(robust_z(values), (values - 3) / 1.4826)
    assert torch.equal(robust_z(torch.tensor([1.0, 1.0, 1.0, 5.0])), torch.zeros(4))


def test_a_row_unlike_the_others_stands_out_at_a_glance(trusted: Trusted):
    rows = torch.randn(6, 6, generator=Seed(3).generator())
    rows[2] = rows[2] * 3 + 2
    seen = LastLayer().inspect(linear(rows), trusted, toy.lab(), Seed(0))
    assert seen.suspect == 2
    assert seen.triggers is None


def test_indicators_against_their_definitions():
    rows, bias = torch.randn(5, 7, generator=Seed(4).generator()), torch.arange(5.0)
    found = indicators(rows, bias)
    for label in range(5):
        row = rows[label]
        others = [other for other in range(5) if other != label]
        cosines = [float(row @ rows[other] / (row.norm() * rows[other].norm())) for other in others]
        assert float(found["length"][label]) == pytest.approx(float(row.square().sum().sqrt()))
        assert float(found["mean"][label]) == pytest.approx(float(row.sum()) / 7, abs=1e-6)
        assert float(found["peak"][label]) == float(row.max())
        assert float(found["cosine"][label]) == pytest.approx(sum(cosines) / 4, abs=1e-5)
    assert torch.equal(found["bias"], bias)


def test_images_change_nothing_at_a_glance():
    """Whatever the trusted images show: only the weights are read."""
    suspect = toy.suspect()
    mine, other = toy.trusted(), Trusted(255 - toy.trusted().images, toy.trusted().labels, toy.CLASSES)
    seen = [LastLayer().inspect(suspect, each, toy.lab(), Seed(0)).scores for each in (mine, other)]
    assert torch.equal(*seen)
    margin = [CHEAP.inspect(suspect, each, toy.lab(), Seed(0)).scores for each in (mine, other)]
    assert torch.equal(*margin)
