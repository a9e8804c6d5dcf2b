"""Networks, trainers, defences and data that keep every promise but one, or all where others build on them."""
# ruff: noqa: ARG002 - the signature is the role's

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from bezoar.data.digits_in_the_wild import DigitsInTheWild
from bezoar.defenses.guards.strip import Strip
from bezoar.defenses.repairers.batchnorm_recalibration import BatchNormRecalibration
from bezoar.defenses.sanitizers.spectral_signatures import SpectralSignatures
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.resnet import SmallResNet
from bezoar.records import Dataset, Inspection, Trusted
from bezoar.roles import Architecture, Detector, Splits
from bezoar.seed import Seed
from bezoar.training.sgd import Sgd
from conformance.broken_attacks import elsewhere


class Unscoped(SmallResNet):
    """It initialises from the global generator."""

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        model = super().build(shape, classes, seed)
        torch.nn.init.normal_(next(model.parameters()))
        return model


class AlwaysTheSame(SmallResNet):
    """It has one initialisation."""

    def build(self, shape: tuple[int, int, int], classes: tuple[str, ...], seed: Seed) -> Classifier:
        return super().build(shape, classes, Seed(0))


class LeftInTrainingMode(Sgd):
    """It returns the model as the last step left it."""

    def train(self, architecture: Architecture, data: Dataset, lab: Lab, seed: Seed) -> Classifier:
        return super().train(architecture, data, lab, seed).train()


class ForgetsALayer(Sgd):
    """One weight is as it was."""

    def train(self, architecture: Architecture, data: Dataset, lab: Lab, seed: Seed) -> Classifier:
        model = super().train(architecture, data, lab, seed)
        fresh = architecture.build(data.shape, data.classes, seed / "initialisation")
        next(model.parameters()).data.copy_(next(fresh.parameters()))
        return model


class Repair(BatchNormRecalibration):
    """The repairer that the broken ones spoil."""

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        yield from super().repair(suspect, trusted, lab, seed)


class MutatesItsInput(Repair):
    """In the end it writes the repair into the suspect."""

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        for student in super().repair(suspect, trusted, lab, seed):
            yield student
        suspect.load_state_dict(student.state_dict())


class YieldsTooFew(Repair):
    """It does not keep its word about length."""

    @property
    def length(self) -> int:
        return self.steps + 1


class YieldsCopies(Repair):
    """Each model is another object."""

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        return (student.copy() for student in super().repair(suspect, trusted, lab, seed))


class LeaksGradientMode(Repair):
    """Whoever looks at its models finds gradients switched off."""

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        for student in super().repair(suspect, trusted, lab, seed):
            with torch.no_grad():
                yield student


class LeavesAHookWhenAbandoned(Repair):
    """It tidies up only at its end."""

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        models = super().repair(suspect, trusted, lab, seed)
        first = next(models)
        handle = suspect.register_forward_hook(lambda *_: None)
        yield first
        yield from models
        handle.remove()


class SharesABuffer(Repair):
    """Its student normalises with the suspect's own tensor."""

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        for student in super().repair(suspect, trusted, lab, seed):
            student.mean = suspect.mean
            yield student


class RepairsByChance(Repair):
    """It has more to go by than its seed."""

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        return super().repair(suspect, trusted, lab, elsewhere(seed))


class Diverges(Repair):
    """Its weights leave the numbers."""

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        for student in super().repair(suspect, trusted, lab, seed):
            next(student.parameters()).data.fill_(torch.nan)
            yield student


class RepairsRuins(Repair):
    """It makes numbers of what are none and says nothing."""

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        copy = suspect.copy()
        for tensor in (*copy.parameters(), *copy.buffers()):
            tensor.data.copy_(tensor.nan_to_num())
        return super().repair(copy, trusted, lab, seed)


class NeedsCompany(Repair):
    """A single image's spread ruins it."""

    def repair(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Iterator[Classifier]:
        for student in super().repair(suspect, trusted, lab, seed):
            if len(trusted) == 1:
                next(student.parameters()).data.fill_(torch.nan)
            yield student


class Look(Detector):
    """The detector that the broken ones spoil: how often the model answers each class."""

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        answers = suspect.copy().eval()(trusted.images.float() / 255).argmax(1)
        return Inspection(answers.bincount(minlength=len(trusted.classes)).float())


class LeavesAHook(Look):
    """It watches the suspect for ever."""

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        suspect.head.register_forward_pre_hook(lambda *_: None)
        return super().inspect(suspect, trusted, lab, seed)


class RollsDice(Look):
    """It draws from Python's global generator."""

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        random.random()
        return super().inspect(suspect, trusted, lab, seed)


class CountsWhatItSees(Look):
    """A class that no trusted image shows has no number."""

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        scores = super().inspect(suspect, trusted, lab, seed).scores
        return Inspection(scores / trusted.labels.bincount(minlength=len(scores)).sign())


class WantsMoreThanOne(Look):
    """A single image's spread is no number, and neither is its answer."""

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        scores = super().inspect(suspect, trusted, lab, seed).scores
        return Inspection(scores + 0 / torch.tensor(len(trusted) - 1.0))


class HoldsItsGraph(Look):
    """What it says cannot be stored."""

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        return Inspection(super().inspect(suspect, trusted, lab, seed).scores.requires_grad_())


class TellsTooMuch(Look):
    """Its evidence is one number for each image."""

    def inspect(self, suspect: Classifier, trusted: Trusted, lab: Lab, seed: Seed) -> Inspection:
        found = super().inspect(suspect, trusted, lab, seed)
        return Inspection(found.scores, evidence={"label": trusted.labels.float()})


class Sanitize(SpectralSignatures):
    """The sanitizer that the broken ones spoil."""

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Tensor:
        return super().suspicion(victim, data, lab, seed)


class ScoresNobody(Sanitize):
    """Its scores are infinite."""

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Tensor:
        return torch.full((len(data),), torch.inf)


class LeavesTheVictimInEvaluation(Sanitize):
    """It sets all modes alike."""

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Tensor:
        return super().suspicion(victim.eval(), data, lab, seed)


class RanksByChance(Sanitize):
    """It has more to go by than its seed."""

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Tensor:
        nudge = torch.rand((), generator=elsewhere(seed).generator())
        return super().suspicion(victim, data, lab, seed) * (1 + 0.1 * nudge)


class RanksWithDice(Sanitize):
    """It draws from Python's global generator."""

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Tensor:
        random.random()
        return super().suspicion(victim, data, lab, seed)


class LooksAtThePlace(Sanitize):
    """The later a row, the more suspicious."""

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Tensor:
        scores = super().suspicion(victim, data, lab, seed)
        return scores + 0.1 * scores.max() * torch.linspace(0, 1, len(scores))


class DividesByTheSpread(Sanitize):
    """A class of one row has none."""

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Tensor:
        sizes = data.labels.bincount()[data.labels]
        return super().suspicion(victim, data, lab, seed) + 0 / (sizes - 1)


class ThePureAreSuspicious(Sanitize):
    """It ranks upside down."""

    def suspicion(self, victim: Classifier, data: Dataset, lab: Lab, seed: Seed) -> Tensor:
        return -super().suspicion(victim, data, lab, seed)


class Stand(Strip):
    """The guard that the broken ones spoil."""

    def suspicion(self, model: Classifier, images: Tensor, trusted: Trusted, lab: Lab, seed: Seed) -> Tensor:
        return super().suspicion(model, images, trusted, lab, seed)


class HoldsAGraph(Stand):
    """Its scores want a gradient."""

    def suspicion(self, model: Classifier, images: Tensor, trusted: Trusted, lab: Lab, seed: Seed) -> Tensor:
        return super().suspicion(model, images, trusted, lab, seed).requires_grad_()


class NeedsAQuery(Stand):
    """Of nobody it makes somebody."""

    def suspicion(self, model: Classifier, images: Tensor, trusted: Trusted, lab: Lab, seed: Seed) -> Tensor:
        return super().suspicion(model, images, trusted, lab, seed) if len(images) else torch.zeros(1)


class SetsTheModelToEvaluation(Stand):
    """It sets all modes alike."""

    def suspicion(self, model: Classifier, images: Tensor, trusted: Trusted, lab: Lab, seed: Seed) -> Tensor:
        return super().suspicion(model.eval(), images, trusted, lab, seed)


class WritesIntoTheQueries(Stand):
    """It lays its images over the queries in place."""

    def suspicion(self, model: Classifier, images: Tensor, trusted: Trusted, lab: Lab, seed: Seed) -> Tensor:
        scores = super().suspicion(model, images, trusted, lab, seed)
        images.mul_(0.5)
        return scores


class GuardsByChance(Stand):
    """It has more to go by than its seed."""

    def suspicion(self, model: Classifier, images: Tensor, trusted: Trusted, lab: Lab, seed: Seed) -> Tensor:
        nudge = torch.rand((), generator=elsewhere(seed).generator())
        return super().suspicion(model, images, trusted, lab, seed) * (1 + 0.1 * nudge)


class GuardsWithDice(Stand):
    """It draws from Python's global generator."""

    def suspicion(self, model: Classifier, images: Tensor, trusted: Trusted, lab: Lab, seed: Seed) -> Tensor:
        random.random()
        return super().suspicion(model, images, trusted, lab, seed)


class ComparesQueries(Stand):
    """A score says how a query differs from the others."""

    def suspicion(self, model: Classifier, images: Tensor, trusted: Trusted, lab: Lab, seed: Seed) -> Tensor:
        scores = super().suspicion(model, images, trusted, lab, seed)
        return scores - scores.mean() if len(images) else scores


class DividesByHowManyItTrusts(Stand):
    """With one trusted image it divides by zero."""

    def suspicion(self, model: Classifier, images: Tensor, trusted: Trusted, lab: Lab, seed: Seed) -> Tensor:
        return super().suspicion(model, images, trusted, lab, seed) + 0 / torch.tensor(len(trusted) - 1.0)


class SeesNothing(Stand):
    """It finds every query alike."""

    def suspicion(self, model: Classifier, images: Tensor, trusted: Trusted, lab: Lab, seed: Seed) -> Tensor:
        return 0 * super().suspicion(model, images, trusted, lab, seed)


class SharesSources(DigitsInTheWild):
    """Its test images show training digits."""

    def load(self, folders: tuple[Path, ...]) -> Splits:
        train = super().load(folders).train
        return Splits(train, train)


class LosesAName(DigitsInTheWild):
    """Its test data know fewer classes."""

    def load(self, folders: tuple[Path, ...]) -> Splits:
        splits = super().load(folders)
        test = splits.test
        return Splits(splits.train, Dataset(test.labels, test.classes[:-1], test.shape, test.reader, test.groups))
