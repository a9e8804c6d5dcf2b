"""STRIP: entropies by hand and by scipy, what its forms say of each other, and what it finds in a backdoored model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bezoar.component import build
from bezoar.defenses.guards import strip as module
from bezoar.defenses.guards.strip import Strip, entropy
from bezoar.errors import DataError, ModelFileError, SettingError
from bezoar.lab import Lab
from bezoar.measure.estimates import auc
from bezoar.models.classifier import Classifier, mode
from bezoar.records import Trusted, as_float
from bezoar.roles import Guard
from bezoar.seed import Seed
from bezoar.testing import toy
from bezoar.testing.guards import backdoored, queries, stamped


def look(guard: Guard, images: Tensor, trusted: Trusted | None = None, model: Classifier | None = None) -> Tensor:
    return guard.suspicion(model or backdoored(), images, toy.trusted() if trusted is None else trusted, Lab(), Seed(3))


def test_entropy_is_in_bits_and_between_sure_and_no_idea():
    logits = torch.tensor([[0.0, 0, 0, 0], [math.log(3), 0, -torch.inf, -torch.inf], [200.0, 0, 0, 0]]).double()
    expected = [2.0, 0.75 * math.log2(4 / 3) + 0.25 * 2, 0.0]
    assert entropy(logits).tolist() == pytest.approx(expected)


def test_a_score_is_the_mean_entropy_of_the_blends_by_scipy(monkeypatch: pytest.MonkeyPatch):
    """Second route: image by image, blended in numpy, the entropy by scipy; chunks that do not divide the queries."""
    monkeypatch.setattr(module, "BATCH", 11)
    images, trusted, guard = queries()[:5], toy.trusted(), Strip(overlays=7, weight=0.5)
    model = backdoored()
    chosen = (Seed(3) / "overlays").permutation(len(trusted))[:7]
    expected: list[float] = []
    for image in images.numpy():
        blends = np.minimum(image + 0.5 * trusted.images[chosen].numpy() / np.float32(255), 1)
        with torch.no_grad(), mode(model, training=False):
            answers = model(torch.from_numpy(blends.astype(np.float32))).double().softmax(1)
        expected.append(float(np.mean([stats.entropy(answer, base=2) for answer in answers.numpy()])))
    assert look(guard.replace(form="uncertain"), images).tolist() == pytest.approx(expected, abs=1e-5)
    assert look(guard, images).tolist() == pytest.approx([-each for each in expected], abs=1e-5)


def test_fewer_trusted_images_than_overlays_are_all_laid_over():
    few = toy.trusted().take(torch.arange(3))
    assert torch.equal(look(Strip(overlays=100), queries(), few), look(Strip(overlays=3), queries(), few))


def test_both_is_the_distance_from_the_median_of_trusted_images_none_of_which_lies_over_itself():
    """Second route: each trusted image asked as a query of a guard that holds the other overlays alone."""
    trusted = toy.trusted().take(torch.arange(6))
    usual = []
    for place in range(6):
        others = trusted.take(torch.tensor([row for row in range(6) if row != place]))
        usual.append(float(look(Strip(form="uncertain"), as_float(trusted.images[place : place + 1]), others)))
    found = look(Strip(form="uncertain"), queries(), trusted).numpy()
    expected = np.abs(found - np.median(usual)) / stats.median_abs_deviation(usual, scale="normal")
    assert look(Strip(form="both"), queries(), trusted).numpy() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("form", ["confident", "both"])
def test_queries_with_badnets_are_found_in_a_backdoored_model(form: str):
    scores = look(build(Guard, {"kind": "strip", "form": form}), torch.cat([stamped(queries()), queries()]))
    assert auc(scores[:32].tolist(), scores[32:].tolist()).value > 0.9


def test_in_a_model_without_a_backdoor_the_same_mark_is_no_sign():
    scores = look(Strip(), torch.cat([stamped(queries()), queries()]), model=toy.suspect().eval())
    assert auc(scores[:32].tolist(), scores[32:].tolist()).value < 0.8


def test_queries_that_are_made_uncertain_are_found_by_the_inverted_form_and_missed_by_the_papers():
    """A model whose answers a mark washes out, as one does that a certifier refuses."""
    dull = dulled()
    images = torch.cat([stamped(queries()), queries()])
    found = {form: look(build(Guard, {"kind": "strip", "form": form}), images, model=dull) for form in FORMS}
    areas = {form: auc(each[:32].tolist(), each[32:].tolist()).value for form, each in found.items()}
    assert areas["uncertain"] > 0.95
    assert areas["both"] > 0.9
    assert areas["confident"] < 0.05


FORMS = ("confident", "uncertain", "both")


def dulled() -> Classifier:
    """Its logits are divided by 20 where the middle of the image is white."""
    model = backdoored()
    answer = model.forward

    def forward(images: Tensor) -> Tensor:
        white = (images[:, :, 6:10, 6:10] > 0.99).flatten(1).all(1)
        return answer(images) * torch.where(white, 0.05, 2.0)[:, None]

    model.forward = forward
    return model


def test_no_trusted_image_and_other_shapes_are_refused_by_name():
    with pytest.raises(DataError, match=r"^trusted: .*at least one"):
        look(Strip(), queries(), toy.trusted().take(torch.arange(0)))
    with pytest.raises(DataError, match=r"^trusted: queries of 3x8x8 .* of 3x16x16"):
        look(Strip(), queries()[:, :, :8, :8])
    with pytest.raises(SettingError, match="overlays"):
        build(Guard, {"kind": "strip", "overlays": 0})


def test_answers_that_are_no_numbers_are_refused_in_words():
    model = toy.suspect()
    with torch.no_grad():
        next(iter(model.parameters())).fill_(torch.nan)
    with pytest.raises(ModelFileError, match="not all finite"):
        look(Strip(), queries(), model=model)
