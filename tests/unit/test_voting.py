"""The vote of an ensemble: when no free votes can turn it, and that no change within the radius does."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from exact import Exact, linear

from bezoar.certifiers.voting import Voting, by_vote, leads
from bezoar.component import build
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.ensemble import EnsembleClassifier
from bezoar.records import Certificates
from bezoar.roles import Certifier
from bezoar.seed import Seed
from bezoar.testing import toy


def test_an_answer_leads_exactly_if_no_choice_of_the_unsure_votes_beats_it():
    """Second route: all choices of the unsure, for all votes of four members for three classes."""
    for sure in product((-1, 0, 1, 2), repeat=4):
        free = [place for place, one in enumerate(sure) if one < 0]
        outcomes = set()
        for said in product(range(3), repeat=len(free)):
            votes = list(sure)
            for place, one in zip(free, said, strict=True):
                votes[place] = one
            outcomes.add(max(range(3), key=lambda cls: (votes.count(cls), -cls)))
        for answer in range(3):
            ahead = int(leads(torch.tensor(sure)[:, None], torch.tensor([answer]), 3)) >= 0
            assert ahead == (outcomes == {answer})


def test_the_radius_is_that_of_the_last_member_that_is_needed():
    """Four members for class 1 and one for class 0: three of the four outvote the two others, two do not."""
    classes, radii = [1, 1, 0, 1, 1], [0.1, 0.4, 0.9, 0.3, 0.2]
    members = [
        Certificates(
            torch.tensor([cls]),
            torch.tensor([radius]),
            torch.tensor([radius >= 0.25]),
            torch.tensor([0.0]),
            torch.tensor([place]),
            ("a", "b", "c", "d", "e"),
            "2",
        )
        for place, (cls, radius) in enumerate(zip(classes, radii, strict=True))
    ]
    found = by_vote(members, 2)
    assert (found.predicted.item(), found.radius.item()) == (1, pytest.approx(0.2))
    assert (found.certified.item(), found.method.item(), found.norm) == (False, 4, "2")
    assert found.evidence.item() == 2 - 2 - (1 + 1)


def test_no_change_within_the_radius_alters_the_vote_and_one_beyond_it_does():
    """By brute force over all corners of the ball around many images, the worst changes for linear members."""
    model = EnsembleClassifier([linear(3, number) for number in (1, 2, 3, 4, 5)], "classes").eval()
    images = torch.rand(80, 1, 3, 3, generator=Seed(3).generator())
    found = Voting(certifier=Exact()).certify(model, images, Lab(), Seed(1))
    assert torch.equal(found.predicted, model(images).argmax(1))
    sure = (found.radius > 0).nonzero()[:, 0]
    assert len(sure) > 20
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=9))).view(-1, 1, 3, 3)
    altered = 0
    for row in sure.tolist():
        answer = found.predicted[row]
        assert (model(images[row] + corners * found.radius[row] * (1 - 1e-4)).argmax(1) == answer).all()
        altered += bool((model(images[row] + corners * found.radius[row] * 1.5).argmax(1) != answer).any())
    assert altered > len(sure) / 4


def test_a_single_model_is_an_ensemble_of_one():
    model, images = linear(3), torch.rand(30, 1, 3, 3, generator=Seed(4).generator())
    alone, voted = (
        each.certify(model, images, Lab(), Seed(1))
        for each in (Exact(smallest=0.05), Voting(certifier=Exact(smallest=0.05)))
    )
    for name in ("predicted", "radius", "certified", "method"):
        assert torch.equal(getattr(alone, name), getattr(voted, name))
    assert 0 < int(alone.certified.sum()) < 30


def test_members_that_add_up_probabilities_are_refused_by_name():
    model = EnsembleClassifier([linear(3, 1), linear(3, 2)], "probabilities").eval()
    with pytest.raises(SettingError, match="model: its members vote by probabilities"):
        build(Certifier, "voting").certify(model, torch.rand(2, 1, 3, 3), toy.lab(), Seed(1))
