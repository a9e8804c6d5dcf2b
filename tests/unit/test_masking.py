"""Mask and recertify: what squares hide, what a radius promises of the vote, and what becomes of small triggers."""
# ruff: noqa: ARG002 - the signature is the role's

from __future__ import annotations

from itertools import product
from typing import ClassVar, Literal

import pytest
import torch
from exact import Exact, linear
from torch import Tensor, nn

from bezoar.certifiers.bounds import Bounds
from bezoar.certifiers.masking import GREY, Masking, by_majority
from bezoar.component import build
from bezoar.errors import DataError, SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Certificates
from bezoar.roles import Certifier
from bezoar.seed import Seed

Rule = Literal["majority", "double"]
RULES: tuple[Rule, ...] = ("majority", "double")


class Wary(Exact):
    """Vouches for what the model answers within .1, unless a white square of three pixels is there and it `shies`."""

    kind: ClassVar[str] = "wary"
    shies: bool = False

    def certify(self, model: Classifier, images: Tensor, lab: Lab, seed: Seed) -> Certificates:
        with torch.no_grad():
            predicted = model(images).argmax(1)
        kept = ~(marked(images) & self.shies)
        radius = 0.1 * kept.float()
        return Certificates(predicted, radius, kept, radius, kept.long() - 1, ("wary",), "inf")


def marked(images: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(images, 3, 1).flatten(1).amax(1) > 0.99


class Brightness(nn.Module):
    """Dark or bright, but dark wherever there is a white square of three pixels: a backdoor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 2)
        nn.init.constant_(self.linear.bias, 0)
        self.linear.weight.data.copy_(torch.tensor([[-1.0], [1.0]]))

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3))[:, None] - GREY
        return self.linear(torch.where(marked(images)[:, None], -1.0, bright))


def brightness() -> Classifier:
    return Classifier.wrap(Brightness(), ("dark", "bright")).eval()


def certify(masking: Masking, model: Classifier, images: Tensor) -> Certificates:
    return masking.certify(model, images, Lab(), Seed(1))


def bright(count: int = 6) -> Tensor:
    return 0.6 + 0.3 * torch.rand(count, 1, 12, 12, generator=Seed(2).generator())


def stamped(images: Tensor) -> Tensor:
    images = images.clone()
    images[:, :, 8:11, 8:11] = 1
    return images


@pytest.mark.parametrize(
    ("height", "width", "size", "patch"), [(12, 12, 5, 3), (8, 11, 4, 2), (7, 7, 6, 6), (9, 9, 3, 1)]
)
def test_every_patch_lies_wholly_within_a_hidden_square_and_every_square_has_its_size(height, width, size, patch):
    masks = Masking(certifier=Exact(), size=size, patch=patch).masks(height, width)
    assert (masks.flatten(1).sum(1) == size * size).all()
    for top, left in product(range(height - patch + 1), range(width - patch + 1)):
        assert masks[:, 0, top : top + patch, left : left + patch].flatten(1).all(1).any()


@pytest.mark.parametrize("side", [8, 16, 28, 32])
def test_nine_squares_are_enough_by_default(side: int):
    assert len(Masking(certifier=Exact()).masks(side, side)) == 9


def voted(model: Classifier, images: Tensor, masking: Masking) -> list[int]:
    """Second route to the vote: its definition, image by image, from nothing but the model's answers."""
    masks = masking.masks(*images.shape[2:])
    numbers = range(len(masks))

    def answers(*hidden: int) -> list[int]:
        copies = images.clone()
        for each in hidden:
            copies[masks[each].expand_as(copies)] = GREY
        return model(copies).argmax(1).tolist()

    single = [answers(i) for i in numbers]
    double = [[answers(i, j) for j in numbers] for i in numbers] if masking.rule == "double" else []
    votes: list[int] = []
    for image in range(len(images)):
        if masking.rule == "majority":
            heard = [each[image] for each in single]
            best = max(set(heard), key=heard.count)
            votes.append(best if heard.count(best) > masking.share * len(masks) else -1)
        else:
            rows = [{each[image] for each in row} for row in double]
            whole = {row.pop() for row in rows if len(row) == 1}
            assert len(whole) <= 1
            votes.append(whole.pop() if whole else -1)
    return votes


@pytest.mark.parametrize("rule", RULES)
def test_no_change_within_the_radius_alters_the_vote_and_one_beyond_it_does(rule: Rule):
    """By brute force: the vote itself at all corners of the ball, which are the worst changes for a linear model."""
    model, masking = linear(3), Masking(certifier=Exact(), size=1, patch=1, rule=rule)
    images = torch.rand(60, 1, 3, 3, generator=Seed(3).generator())
    found = certify(masking, model, images)
    assert found.predicted.tolist() == voted(model, images, masking)
    sure = (found.radius > 0).nonzero()[:, 0]
    assert len(sure) > 12
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=9))).view(-1, 1, 3, 3)
    altered = 0
    for row in sure[:12].tolist():
        inside = images[row] + corners * found.radius[row] * (1 - 1e-4)
        assert set(voted(model, inside, masking)) == {int(found.predicted[row])}
        beyond = images[row] + corners * found.radius[row] * 2.5
        altered += set(voted(model, beyond, masking)) != {int(found.predicted[row])}
    assert altered > 0


def test_a_share_is_what_more_copies_than_that_keep():
    """Five copies with known classes and radii: the third largest radius of the class with three of them."""
    classes, radii = [1, 1, 0, 1, -1], [0.1, 0.4, 0.9, 0.3, 0.0]
    copies = [
        Certificates(
            torch.tensor([cls]),
            torch.tensor([radius]),
            torch.tensor([radius >= 0.3]),
            torch.tensor([0.0]),
            torch.tensor([place if radius else -1]),
            ("a", "b", "c", "d", "e"),
            "2",
        )
        for place, (cls, radius) in enumerate(zip(classes, radii, strict=True))
    ]
    found = by_majority(copies, 0.5)
    assert (found.predicted.item(), found.radius.item(), found.certified.item()) == (1, pytest.approx(0.1), False)
    assert (found.method.item(), found.evidence.item(), found.norm) == (3, pytest.approx(0.4), "2")
    refused = by_majority(copies, 0.6)
    assert (refused.predicted.item(), refused.radius.item(), refused.method.item()) == (-1, 0, -1)


def test_a_trigger_that_makes_the_model_wrong_is_undone_by_double_masks_and_not_by_a_majority():
    model, images = brightness(), stamped(bright())
    assert model(images).argmax(1).tolist() == [0] * 6
    double, majority = (
        certify(Masking(certifier=Wary(), size=4, patch=3, rule=rule), model, images) for rule in ("double", "majority")
    )
    assert double.predicted.tolist() == [1] * 6
    assert double.certified.all()
    assert (double.radius == 0.1).all()
    assert majority.predicted.tolist() == [0] * 6


def test_a_trigger_that_makes_the_certifier_refuse_is_undone_by_double_masks_and_not_by_a_majority():
    model, images, shy = brightness(), bright(), Wary(shies=True)
    assert not shy.certify(model, stamped(images), Lab(), Seed(0)).certified.any()
    for rule in RULES:
        assert certify(Masking(certifier=shy, size=4, patch=3, rule=rule), model, images).certified.all()
    double, majority = (
        certify(Masking(certifier=shy, size=4, patch=3, rule=rule), model, stamped(images))
        for rule in ("double", "majority")
    )
    assert double.certified.all()
    assert double.predicted.tolist() == [1] * 6
    assert not majority.certified.any()


@pytest.mark.parametrize("rule", RULES)
def test_an_image_is_judged_alike_among_others_and_none_by_nobody(rule: Rule):
    masking, model = Masking(certifier=Exact(), rule=rule), linear(8)
    images = torch.rand(5, 1, 8, 8, generator=Seed(4).generator())
    together, alone = certify(masking, model, images), certify(masking, model, images[3:4])
    assert alone.radius.item() == pytest.approx(float(together.radius[3]), abs=1e-6)
    assert len(certify(masking, model, images[:0])) == 0
    assert (masking.norm, masking.demanded, together.methods) == ("inf", 0, ("exact",))


def test_settings_and_images_that_cannot_be_are_refused_by_name():
    assert build(Certifier, "masking") == Masking(certifier=Bounds())
    with pytest.raises(SettingError, match="patch: a square of 5 pixels is not hidden by one of size=4"):
        build(Masking, {"certifier": Exact(), "size": 4, "patch": 5})
    with pytest.raises(SettingError, match="share"):
        build(Masking, {"certifier": Exact(), "share": 0.4})
    images = torch.rand(2, 1, 8, 8, generator=Seed(4).generator())
    with pytest.raises(SettingError, match=r"certifier.size: a mask of 8 pixels .* 8x8.* at most 7"):
        certify(Masking(certifier=Exact(), size=8), linear(8), images)
    with pytest.raises(SettingError, match=r"certifier.patch: a square of 5 pixels"):
        certify(Masking(certifier=Exact(), patch=5), linear(8), images)
    images[1, 0, 0, 0] = 1.5
    with pytest.raises(DataError, match=r"image 1 has the value .*, outside \[0, 1\]"):
        certify(Masking(certifier=Exact()), linear(8), images)
