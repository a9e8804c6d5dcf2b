"""What every certifier must hold to."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from bezoar.errors import DataError, SettingError
from bezoar.models.classifier import Classifier
from bezoar.records import Certificates, Norm, as_float
from bezoar.roles import Certifier
from bezoar.testing import toy
from bezoar.testing.watch import (
    Claim,
    UnmetClaimError,
    bits,
    nothing_global_changes,
    other_generators,
    remembered,
    require,
    require_unchanged,
    state,
)

COUNT = 20
POINTS, STEPS = 50, 10
"""Of the search for a counterexample: random points, and projected steps, for each certified image."""


def every_image_has_one_certificate(certifier: Certifier) -> None:
    """Vectors [n] on the CPU, apart from any graph, of the types that the record names."""
    found = _certificates(certifier)
    each = (found.predicted, found.radius, found.certified, found.evidence, found.method)
    require(all(one.shape == (COUNT,) for one in each), f"{COUNT} images have {[tuple(one.shape) for one in each]}")
    require(all(one.device == torch.device("cpu") and not one.requires_grad for one in each), "it cannot be kept")
    require(found.predicted.dtype == found.method.dtype == torch.int64, "a class or a method is no int64")
    require(found.certified.dtype == torch.bool, "certified or not is no bool")
    require(bool(found.radius.isfinite().all() and found.evidence.isfinite().all()), "a number is not finite")
    require(
        found.norm == certifier.norm, f"radii are in the norm {found.norm!r}, the certifier's is {certifier.norm!r}"
    )


def certified_means_the_demanded_radius(certifier: Certifier) -> None:
    """No less, and no other image has as much; a radius has a method, and whoever abstains vouches for nothing."""
    found = _certificates(certifier)
    require(certifier.demanded > 0, f"it demands a radius of {certifier.demanded}")
    require(bool((found.radius >= 0).all()), "a radius is negative")
    enough = found.radius >= certifier.demanded * (1 - 1e-6)
    require(torch.equal(found.certified, enough), "certified is not what the radius says")
    named = (found.method >= -1) & (found.method < len(found.methods))
    require(bool(named.all()), f"methods are {found.method.tolist()}, of {found.methods}")
    require(torch.equal(found.method >= 0, found.radius > 0), "a radius without a method, or a method without a radius")
    require(not bool((found.certified & (found.predicted < 0)).any()), "an image is certified that was not answered")


def the_answer_is_the_model_s(certifier: Certifier) -> None:
    """What is certified is the class that the model predicts, and another class is never named."""
    found = _certificates(certifier)
    with torch.no_grad():
        said = toy.robust()(_images()).argmax(1)
    held = found.certified & (found.predicted != said)
    require(not bool(held.any()), f"images {held.nonzero()[:, 0].tolist()} are certified for another class")
    classes = (found.predicted >= -1) & (found.predicted < len(toy.CLASSES))
    require(bool(classes.all()), f"the classes are {found.predicted.tolist()}")


def a_robust_model_is_vouched_for(certifier: Certifier) -> None:
    """On images of its own kind, for half of them at least: a certifier that never certifies is of no use."""
    found = _certificates(certifier)
    require(float(found.certified.float().mean()) >= 0.5, f"{int(found.certified.sum())} of {COUNT} are certified")


def the_model_and_the_images_are_left_alone(certifier: Certifier) -> None:
    """Weights, buffers, modes, flags, gradients and hooks of the model, and the pixels."""
    model, images = _model(), _images()
    before, pixels = state(model), bits(images)
    certifier.certify(model, images, toy.lab(), toy.SEED)
    require_unchanged(before, state(model), "the model's ")
    require(bits(images) == pixels, "the images were changed")


def the_same_seed_certifies_the_same(certifier: Certifier) -> None:
    """Whatever the global generators are at."""
    first = _certificates(certifier)
    with other_generators():
        again = _look(certifier)
    same = all(bits(getattr(first, name)) == bits(getattr(again, name)) for name in ("predicted", "radius", "evidence"))
    require(same, "two looks with one seed give two answers")


def certifying_leaves_global_state_alone(certifier: Certifier) -> None:
    """Generators, gradient mode and the rest."""
    with nothing_global_changes():
        _look(certifier)


def no_image_is_too_few(certifier: Certifier) -> None:
    """One image is certified by itself, and so is none."""
    model = toy.robust()
    for count in (1, 0):
        found = certifier.certify(model, _images()[:count], toy.lab(), toy.SEED)
        require(len(found) == count, f"{count} images have {len(found)} certificates")


def the_other_images_do_not_matter(certifier: Certifier) -> None:
    """Without chance, images in another order have the same certificates, in that order; with it, draws differ."""
    if not certifier.deterministic:
        return
    order = (toy.SEED / "order").permutation(COUNT)
    first = _certificates(certifier)
    again = certifier.certify(toy.robust(), _images()[order], toy.lab(), toy.SEED)
    require(torch.equal(again.predicted, first.predicted[order]), "classes depend on the order")
    moved = float((again.evidence - first.evidence[order]).abs().max())
    require(moved <= 1e-4 * float(first.evidence.abs().max()), f"evidence moves by {moved:.3g} in another order")
    require(torch.equal(again.certified, first.certified[order]), "what is certified depends on the order")


def values_outside_0_and_1_are_refused(certifier: Certifier) -> None:
    """Radii are of pixels in [0, 1]; what was normalised before would be certified for nothing."""
    for value in (1.5, -0.5, torch.nan):
        images = _images()
        images[3, 0, 2, 2] = value
        try:
            certifier.certify(toy.robust(), images, toy.lab(), toy.SEED)
        except DataError:
            continue
        raise UnmetClaimError(f"an image with the value {value} was certified")


def a_model_in_training_mode_is_refused(certifier: Certifier) -> None:
    """Its answers depend on the batch, or on chance."""
    try:
        certifier.certify(toy.robust().train(), _images(), toy.lab(), toy.SEED)
    except SettingError:
        return
    raise UnmetClaimError("a model in training mode was certified")


def no_point_of_a_certified_ball_has_another_answer(certifier: Certifier) -> None:
    """Without chance, neither random points nor projected gradient steps find one, on images that show two classes."""
    if not certifier.deterministic:
        return
    model, images = toy.robust(), _images()
    share = torch.linspace(0.5, 1, COUNT)[:, None, None, None]
    images = torch.cat([toy.photographs(), share * images + (1 - share) * images.roll(1, 0)])
    found = certifier.certify(model, images, toy.lab(), toy.SEED)
    held = (found.radius > 0).nonzero()[:, 0]
    for moved in _moved(model, images[held], found.predicted[held], found.radius[held], found.norm):
        with torch.no_grad():
            wrong = model(moved).argmax(1) != found.predicted[held]
        require(not bool(wrong.any()), f"{int(wrong.sum())} certified images have another answer within their ball")


def _moved(model: Classifier, images: Tensor, labels: Tensor, radius: Tensor, norm: Norm) -> Iterator[Tensor]:
    """Points of the balls, in [0, 1]: random ones, then those of an attack that follows the sign of the gradient."""
    generator, size = (toy.SEED / "points").generator(), radius.view(-1, 1, 1, 1)

    def onto(change: Tensor) -> Tensor:
        if norm == "inf":
            return (images + change.clamp(-1, 1) * size).clamp(0, 1)
        return (images + change / change.flatten(1).norm(dim=1).clamp_min(1)[:, None, None, None] * size).clamp(0, 1)

    for _ in range(POINTS):
        change = torch.randn(images.shape, generator=generator)
        yield onto(change.sign() if norm == "inf" else 10 * change)
    change = torch.zeros_like(images)
    for _ in range(STEPS):
        change.requires_grad_()
        loss = functional.cross_entropy(model(onto(change)), labels)
        (slope,) = torch.autograd.grad(loss, change)
        step = (
            slope.sign() if norm == "inf" else slope / slope.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        )
        change = (change + 0.3 * step).detach()
        yield onto(change)


def _images() -> Tensor:
    return as_float(toy.unseen().images()[:COUNT])


def _model() -> Classifier:
    """The robust model, whose layers differ in whether they want gradients."""
    model = toy.robust()
    next(iter(model.parameters())).requires_grad_(True)
    return model


def _look(certifier: Certifier) -> Certificates:
    return certifier.certify(toy.robust(), _images(), toy.lab(), toy.SEED)


_certificates = remembered(_look)

CLAIMS: tuple[Claim, ...] = (
    every_image_has_one_certificate,
    certified_means_the_demanded_radius,
    the_answer_is_the_model_s,
    a_robust_model_is_vouched_for,
    the_model_and_the_images_are_left_alone,
    the_same_seed_certifies_the_same,
    certifying_leaves_global_state_alone,
    no_image_is_too_few,
    the_other_images_do_not_matter,
    values_outside_0_and_1_are_refused,
    a_model_in_training_mode_is_refused,
    no_point_of_a_certified_ball_has_another_answer,
)
