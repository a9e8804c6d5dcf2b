"""The Soft Latent Orthogonalization Loss of Pivotal Tuning."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bezoar.defenses.repairers.pivotal_tuning import PivotalTuning, soft_latent_orthogonalization
from bezoar.seed import Seed
from bezoar.testing import toy

CLASSES, WIDTH = 5, 7


def latents(name: str, count: int = 40) -> Tensor:
    """Non-negative, as those behind a ReLU."""
    return torch.rand(count, WIDTH, generator=(Seed(0) / name).generator())


def labels(count: int = 40) -> Tensor:
    return Seed(0).permutation(count) % CLASSES


def slowly(pivotal: Tensor, now: Tensor, given: Tensor) -> tuple[float, float]:
    """Algorithm 3 as it is printed: both sums over pairs of the classes present, with torch's own cosine."""
    present = given.unique().tolist()
    before = {label: pivotal[given == label].mean(0) for label in present}
    after = {label: now[given == label].mean(0) for label in present}
    turned = within = 0.0
    for i in present:
        for j in present:
            if i < j:
                turned += float(functional.cosine_similarity(before[i] - before[j], after[i] - after[j], dim=0))
                within += float(functional.cosine_similarity(after[i], after[j], dim=0))
    return turned, within


def test_it_is_the_loop_over_pairs():
    value, pairs = soft_latent_orthogonalization(latents("then"), latents("now"), labels(), CLASSES)
    assert float(value) == pytest.approx(sum(slowly(latents("then"), latents("now"), labels())), abs=1e-4)
    assert pairs == CLASSES * (CLASSES - 1) / 2


def test_at_the_pivot_the_first_term_is_the_number_of_pairs_and_the_second_is_none_or_less():
    then = latents("then")
    value, pairs = soft_latent_orthogonalization(then, then, labels(), CLASSES)
    turned, within = slowly(then, then, labels())
    assert turned == pytest.approx(pairs, abs=1e-4)
    assert 0 <= within <= pairs
    assert float(value) == pytest.approx(pairs + within, abs=1e-4)


def test_orthogonal_classes_at_the_pivot_leave_the_first_term_alone():
    corners = torch.eye(CLASSES)[labels()]
    value, pairs = soft_latent_orthogonalization(corners, corners, labels(), CLASSES)
    assert float(value) == pytest.approx(pairs)
    # turning every direction round by half a circle gives the other end of the first term
    value, pairs = soft_latent_orthogonalization(corners, 1 - corners, labels(), CLASSES)
    assert float(value) == pytest.approx(sum(slowly(corners, 1 - corners, labels())), abs=1e-4)
    assert float(value) < 0


def test_classes_that_a_batch_lacks_do_not_count():
    given = labels()
    given[given == 2] = 3
    value, pairs = soft_latent_orthogonalization(latents("then"), latents("now"), given, CLASSES)
    assert pairs == 6
    assert float(value) == pytest.approx(sum(slowly(latents("then"), latents("now"), given)), abs=1e-4)
    more = soft_latent_orthogonalization(latents("then"), latents("now"), given, CLASSES + 10)
    assert float(more[0]) == pytest.approx(float(value))


def test_one_class_gives_nothing_and_no_gradient():
    now = latents("now").requires_grad_()
    value, pairs = soft_latent_orthogonalization(latents("then"), now, torch.full((40,), 3), CLASSES)
    value.backward()
    assert (value.item(), pairs) == (0, 0)
    assert now.grad is not None
    assert not now.grad.any()


def test_it_depends_on_directions_and_not_on_lengths():
    value, _ = soft_latent_orthogonalization(latents("then"), latents("now"), labels(), CLASSES)
    scaled, _ = soft_latent_orthogonalization(latents("then") * 3, latents("now") * 0.2, labels(), CLASSES)
    assert float(scaled) == pytest.approx(float(value), abs=1e-4)


def test_its_gradient_is_that_of_the_loop():
    then, given = latents("then").double(), labels()
    now = latents("now").double().requires_grad_()
    value, _ = soft_latent_orthogonalization(then, now, given, CLASSES)
    (gradient,) = torch.autograd.grad(value, now)
    step = 1e-5 * torch.randn(now.shape, dtype=torch.float64, generator=Seed(1).generator())
    up, down = (sum(slowly(then, now.detach() + sign * step, given)) for sign in (1, -1))
    assert float((gradient * step).sum()) == pytest.approx((up - down) / 2, rel=1e-4)


def test_collapsed_latents_give_a_finite_loss_and_gradient():
    now = torch.ones(40, WIDTH).requires_grad_()  # every class has the same centroid
    value, _ = soft_latent_orthogonalization(latents("then"), now, labels(), CLASSES)
    value.backward()
    assert bool(value.isfinite())
    assert now.grad is not None
    assert bool(now.grad.isfinite().all())


def students(weight: float) -> list[Tensor]:
    """All weights after each of two steps without SLOL."""
    settings = {"slol_lambda": 0.0, "param_lambda": weight, "batchnorm": "eval", "lr": 0.05}
    repairer = PivotalTuning(steps=2, batch_size=16, augmentation="none", **settings)
    run = repairer.repair(toy.suspect(), toy.trusted(), toy.lab(), toy.SEED)
    return [torch.cat([parameter.detach().flatten() for parameter in student.parameters()]) for student in run]


def test_the_parameter_term_has_no_gradient_at_the_pivot():
    free, held = students(0.0), students(2e6)
    assert torch.equal(free[0], held[0])
    assert not torch.equal(free[1], held[1])
