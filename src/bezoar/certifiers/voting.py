"""Certificates of an ensemble that votes: enough of its members are certified to outvote all the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bezoar.certifiers.bounds import Bounds
from bezoar.certifiers.masking import stacked
from bezoar.component import register
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.ensemble import EnsembleClassifier
from bezoar.records import Certificates, Norm
from bezoar.roles import Certifier
from bezoar.seed import Seed


@register("voting", paper="arXiv:2006.14768")
class Voting(Certifier):
    """Another certifier judges each member of an ensemble, and the vote is certified as far as it cannot turn (ours).

    Within the radius r, a member that is certified at r for a class keeps its vote, and any other may vote for
    whatever it likes. So the class c wins there if its sure votes are more than those that are sure for another class
    and all unsure ones together (as many are enough if c is the smaller class, which wins ties). This is the vote of
    partition aggregation (Levine & Feizi, ICLR 2021) with unsure members in the place of poisoned ones; against both
    at once it takes both counts.

    The ensemble is one with ``vote: classes`` (`bezoar.models.ensemble`); any other model is an ensemble of one, whose
    certificates are the inner certifier's. If that one errs with probability alpha (smoothing), one certificate here
    errs with alpha times the number of members at most, and is of the vote of the smoothed members.
    """

    certifier: Certifier = Bounds()

    @property
    def norm(self) -> Norm:
        """The inner certifier's."""
        return self.certifier.norm

    @property
    def demanded(self) -> float:
        """The inner certifier's."""
        return self.certifier.demanded

    def require(self, model: Classifier, shape: tuple[int, int, int]) -> None:
        """Refuse an ensemble that adds up probabilities, and members that the inner certifier refuses.

        Raises:
            SettingError: the ensemble adds up probabilities, or the inner certifier refuses a member.
        """
        for each in _members(model):
            self.certifier.require(each, shape)

    def certify(self, model: Classifier, images: Float[Tensor, "n c h w"], lab: Lab, seed: Seed) -> Certificates:
        """What the vote proves; the evidence is by how many votes its class cannot be caught up at the demanded radius.

        The evidence is negative where it can be. The predicted class is what the members' classes give, and -1 where
        no member has one.

        Raises:
            DataError: an image has values outside [0, 1].
            SettingError: the ensemble adds up probabilities, or the inner certifier refuses a member.
        """
        members = _members(model)
        numbered = lab.progress.track(list(enumerate(members)), "members", len(members))
        return by_vote(
            [self.certifier.certify(each, images, lab, seed / "member" / number) for number, each in numbered],
            len(model.classes),
        )


def _members(model: Classifier) -> Sequence[Classifier]:
    """Those whose classes are counted; any model but an ensemble is the only one."""
    if not isinstance(model, EnsembleClassifier):
        return [model]
    if model.vote != "classes":
        raise SettingError(
            f"model: its members vote by {model.vote}, which certificates of their classes do not bound; "
            "train it with vote: classes"
        )
    return model.voters


def by_vote(members: Sequence[Certificates], classes: int) -> Certificates:
    """The certificates of a plurality vote, of which ties go to the smaller class."""
    predicted, radius, certified, method = stacked(members)
    heard = _counts(predicted, classes)
    answer = heard.argmax(1).where(heard.amax(1) > 0, -1)
    reached = torch.zeros_like(radius[0])
    for level in radius:  # the vote can only turn where a member becomes unsure
        sure = predicted.where((radius >= level) & (radius > 0), -1)
        held = (leads(sure, answer, classes) >= 0) & (level > reached)
        reached = level.where(held, reached)
    used = method.where((radius >= reached) & (reached > 0) & (predicted == answer), -1).amax(0)
    gap = leads(predicted.where(certified, -1), answer, classes)
    return Certificates(answer, reached, gap >= 0, gap.to(reached), used, members[0].methods, members[0].norm)


def leads(sure: Int64[Tensor, "m n"], answer: Int64[Tensor, "n"], classes: int) -> Int64[Tensor, "n"]:
    """By how many votes each answer is ahead of every other class at worst; it wins for sure from 0 on.

    Args:
        sure: the class that each of m members keeps, -1 for one that may vote for any.
        answer: the class whose lead is wanted, -1 for none, which never leads.
        classes: how many there are.
    """
    counts = _counts(sure, classes)
    unsure = len(sure) - counts.sum(1)
    own = answer.clamp_min(0)[:, None]
    # a smaller class wins a tie, so it must be beaten by one vote more
    rivals = (counts + (torch.arange(classes) < own)).scatter(1, own, torch.iinfo(torch.int64).min).amax(1)
    rivals = rivals.clamp_min(0)  # the only class there is has no rival
    return (counts.gather(1, own)[:, 0] - unsure - rivals).where(answer >= 0, -len(sure))


def _counts(votes: Int64[Tensor, "m n"], classes: int) -> Int64[Tensor, "n k"]:
    """How many members vote for each class."""
    return torch.stack([(votes == label).sum(0) for label in range(classes)], 1)
