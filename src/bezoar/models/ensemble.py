"""Several networks that vote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bezoar.component import register
from bezoar.models.classifier import Classifier
from bezoar.models.resnet import SmallResNet
from bezoar.roles import Architecture
from bezoar.seed import Seed

Vote = Literal["classes", "probabilities"]
"""What a member says: 1 for its class and 0 for the others, or its softmax probabilities."""


class EnsembleClassifier(Classifier):
    """Members that each see the image; a logit is the sum of what they say of its class, from 0 to their number.

    The features are what the members say, one behind the other, and the head is the linear layer, never trained, that
    adds up. Sums of votes are whole numbers, so equal ones are equal, and the smaller class wins (`argmax`), as in
    Levine & Feizi. Votes for classes have the gradient of the probabilities (a straight-through estimate), since their
    own is zero. Seen block by block, an ensemble is one wide network: its stages are the members' side by side.
    """

    def __init__(self, members: Sequence[Classifier], vote: Vote) -> None:
        classes = members[0].classes
        super().__init__(classes, (0.0,), (1.0,))
        self.vote: Vote = vote
        self.members = nn.ModuleList(members)
        total: nn.Module = nn.utils.skip_init(nn.Linear, len(members) * len(classes), len(classes), bias=False)
        self.total = cast(nn.Linear, total)  # without initialisation, which would draw from the global generator
        self.total.weight.data.copy_(torch.eye(len(classes)).repeat(1, len(members)))
        self.total.requires_grad_(False)

    @property
    def head(self) -> nn.Module:
        """The sum over the members."""
        return self.total

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the members say, member by member: d is their number times that of the classes."""
        return torch.cat([self._said(member(images)) for member in self.voters], dim=1)

    def trace(self, images: Float[Tensor, "n c h w"]) -> tuple[list[Tensor], Float[Tensor, "n k"]]:
        """The members' outputs block by block, joined along the channels, and the logits."""
        traces = [member.trace(images) for member in self.voters]
        blocks = [torch.cat(outputs, dim=1) for outputs in zip(*(stages for stages, _ in traces), strict=True)]
        return blocks, self.head(torch.cat([self._said(logits) for _, logits in traces], dim=1))

    @property
    def voters(self) -> list[Classifier]:
        """The members, each a classifier of its own."""
        return [member for member in self.members if isinstance(member, Classifier)]

    def _said(self, logits: Tensor) -> Tensor:
        probabilities = logits.softmax(1)
        if self.vote == "probabilities":
            return probabilities
        chosen = functional.one_hot(logits.argmax(1), logits.shape[1]).to(probabilities)
        return chosen + (probabilities - probabilities.detach())  # the difference is exactly 0, and carries gradients


@register("ensemble", paper="arXiv:2006.14768")
class Ensemble(Architecture):
    """Several networks of one architecture, which vote (see `EnsembleClassifier`).

    It is what the trainer `partition_ensemble` makes of any architecture; by itself it is one network of many parts,
    which any other trainer trains on all of the data.
    """

    architecture: Architecture = SmallResNet()
    parts: Annotated[int, Field(ge=1)] = 10
    vote: Vote = "classes"

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        """Each member is initialised by a stream of its own."""
        built = [self.architecture.build(shape, classes, seed / "member" / part) for part in range(self.parts)]
        return assembled(built, self.vote)


def assembled(members: Sequence[Classifier], vote: Vote) -> EnsembleClassifier:
    """An ensemble on the device of its first member, in that one's mode; the members are not copied."""
    model = EnsembleClassifier(members, vote).to(members[0].mean.device)
    model.train(members[0].training)
    return model
