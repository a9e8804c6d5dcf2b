"""Least squares on the simplex, against a grid, a long projected gradient, scipy and closed forms."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from bezoar.attacks.simplex import EXACT, approached, coefficients, exact, onto_simplex
from bezoar.seed import Seed

WIDE = 40


def vectors(*shape: int, name: str = "vectors") -> Tensor:
    """Non-negative, as features after a ReLU are, and far from the origin."""
    return torch.rand(*shape, generator=(Seed(0) / "simplex" / name).generator(), dtype=torch.float64)


def squared(centred: Tensor, chosen: Tensor) -> Tensor:
    return (chosen[..., None] * centred).sum(-2).square().sum(-1)


def feasible(chosen: Tensor) -> None:
    assert (chosen >= 0).all()
    assert torch.allclose(chosen.sum(-1), torch.ones((), dtype=chosen.dtype), atol=1e-6)


def gram_of(centred: Tensor) -> Tensor:
    gram = centred @ centred.mT
    return gram / gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]


@pytest.mark.parametrize("k", [2, 3])
def test_no_point_of_a_dense_grid_is_nearer(k: int) -> None:
    centred = vectors(20, 1, WIDE, name="target") - vectors(20, k, WIDE)
    chosen = coefficients(centred)
    feasible(chosen)
    grid = [point for point in product(np.linspace(0, 1, 101), repeat=k - 1) if sum(point) <= 1 + 1e-9]
    points = torch.tensor([[*point, 1 - sum(point)] for point in grid])
    every = squared(centred[:, None], points.expand(20, -1, -1))
    assert (squared(centred, chosen) <= every.amin(1) + 1e-12).all()
    assert (squared(centred, chosen) >= 0.99 * every.amin(1) - 1e-3).all(), "and the grid comes near"


@pytest.mark.parametrize("k", range(2, EXACT + 1))
def test_the_exact_solution_is_that_of_a_long_projected_gradient(k: int) -> None:
    centred = vectors(60, 1, WIDE, name="target") - vectors(60, k, WIDE)
    centred[:20, 1] = centred[:20, 0]  # singular
    mixed = torch.softmax(4 * vectors(60, k, 1, name="weights"), 1)
    centred[20:40] -= (mixed * centred).sum(1, keepdim=True)[20:40]  # inside the hull
    centred[40:50] -= centred[40:50, :1].clone()  # at a corner
    gram = gram_of(centred)
    best, long = exact(gram), approached(gram, 4000)
    values = [torch.einsum("ni,nij,nj->n", one, gram, one) for one in (best, long)]
    assert torch.allclose(values[0], values[1], atol=1e-9)
    assert (values[0] <= values[1] + 1e-11).all(), "never above"
    assert values[0][20:40].max() < 1e-10
    assert torch.allclose(best[40:50, 0], torch.ones(10, dtype=torch.float64), atol=1e-5)


def test_scipy_finds_the_same_point() -> None:
    centred = vectors(5, 1, WIDE, name="target") - vectors(5, 4, WIDE)
    for one, chosen in zip(centred, coefficients(centred), strict=True):
        gram = (one @ one.T).numpy()

        def objective(c: np.ndarray, gram: np.ndarray = gram) -> tuple[float, np.ndarray]:
            return float(c @ gram @ c), 2 * gram @ c

        whole = {"type": "eq", "fun": lambda c: c.sum() - 1}
        found = minimize(objective, np.full(4, 0.25), jac=True, bounds=[(0, 1)] * 4, constraints=[whole], tol=1e-12)
        assert np.allclose(found.x, chosen.numpy(), atol=1e-4)


def test_many_vectors_are_solved_by_the_same_function() -> None:
    centred = vectors(4, 1, WIDE, name="target") - vectors(4, EXACT + 4, WIDE)
    chosen = coefficients(centred)
    feasible(chosen)
    gram = gram_of(centred)
    here, long = (torch.einsum("ni,nij,nj->n", one, gram, one) for one in (chosen, approached(gram, 20_000)))
    assert (here <= long * (1 + 1e-4) + 1e-12).all()


def test_batches_of_any_shape_are_solved_as_each_for_itself() -> None:
    centred = vectors(3, 2, 1, WIDE, name="target") - vectors(3, 2, 5, WIDE)
    together = coefficients(centred)
    assert together.shape == (3, 2, 5)
    for i, j in product(range(3), range(2)):
        assert torch.allclose(together[i, j], coefficients(centred[i, j]), atol=1e-12)


def test_single_precision_comes_as_near_as_double() -> None:
    centred = vectors(50, 1, WIDE, name="target") - vectors(50, 5, WIDE)
    single = coefficients(centred.float())
    assert single.dtype == torch.float32
    assert torch.allclose(squared(centred, single.double()), squared(centred, coefficients(centred)), rtol=1e-5)


@pytest.mark.parametrize("k", range(2, EXACT + 1))
@pytest.mark.parametrize("case", ["random", "singular", "inside", "flat", "corner"])
def test_single_precision_alone_is_enough_where_there_is_no_double(case: str, k: int) -> None:
    """As on Apple's GPUs: Gram matrix and solution are float32, and their worth is judged in float64.

    The diagonal is around one, so eight roundings of float32 are 1e-6.
    """
    several = vectors(200, k, WIDE) if case != "flat" else vectors(200, k, 3) @ vectors(200, 3, WIDE, name="space")
    centred = vectors(200, 1, WIDE, name="target") - several
    if case == "singular":
        centred[:, 1] = centred[:, 0]
    elif case in ("inside", "flat"):
        mixed = torch.softmax(4 * vectors(200, k, 1, name="weights"), 1)
        centred -= (mixed * centred).sum(1, keepdim=True)
    elif case == "corner":
        centred -= centred[:, :1].clone()
    gram = gram_of(centred)
    best = exact(gram)
    for given in (gram.float(), gram_of(centred.float())):
        single = exact(given)
        assert single.dtype == torch.float32
        feasible(single)
        values = [torch.einsum("ni,nij,nj->n", one, gram, one) for one in (single.double(), best)]
        assert torch.allclose(values[0], values[1], atol=1e-6)
        if case == "random":
            assert torch.allclose(single.double(), best, atol=1e-4)
        if case == "corner":
            assert torch.allclose(single[:, 0], torch.ones(200), atol=1e-3)


def test_a_target_that_all_vectors_meet_has_coefficients_all_the_same() -> None:
    chosen = coefficients(torch.zeros(2, 5, WIDE))
    feasible(chosen)


def test_the_projection_is_the_nearest_point_of_the_simplex() -> None:
    points = 3 * vectors(30, 3) - 1
    projected = onto_simplex(points)
    feasible(projected)
    grid = torch.tensor([[a, b, 1 - a - b] for a, b in product(np.linspace(0, 1, 201), repeat=2) if a + b <= 1])
    nearest = (points[:, None] - grid).square().sum(-1).amin(1)
    here = (points - projected).square().sum(-1)
    assert (here <= nearest + 1e-12).all()
    assert (here >= nearest - 0.05).all()
    inside = onto_simplex(projected)
    assert torch.allclose(inside, projected, atol=1e-12)


def test_proposition_1_a_target_in_the_hull_gets_the_label_that_all_vectors_get() -> None:
    """And one outside does not always: some linear classifier tells it from all of them."""
    several = vectors(4, WIDE)
    weights = torch.softmax(vectors(4, name="weights"), 0)
    inside = weights @ several
    heads = torch.randn(20_000, WIDE + 1, generator=Seed(1).generator(), dtype=torch.float64)
    score = several @ heads[:, :-1].T + heads[:, -1]
    agreed = (score > 0).all(0)
    assert agreed.sum() > 100, "so many random heads agree on all vectors"
    assert (inside @ heads[agreed, :-1].T + heads[agreed, -1] > 0).all()
    chosen = coefficients(inside - several)
    assert squared(inside - several, chosen) < 1e-20
    outside = several[0] + 0.5 * (several[0] - several[1:].mean(0))
    rest = outside - coefficients(outside - several) @ several
    assert rest.norm() > 0.1
    # the hyperplane through the nearest point, across the rest, has all vectors on one side and the target on the other
    nearest = outside - rest
    assert ((several - nearest) @ rest <= 1e-9).all()
    assert (outside - nearest) @ rest > 0
