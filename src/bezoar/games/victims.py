"""How victims fine-tune a pre-trained model on data with a few poisons in it, one victim for each target.

The settings are the paper's (Zhu et al., section 4; spec 5): Adam, batches of 64, a tenth of the rate after half and
after three quarters of the epochs, no augmentation, batch normalisation as it was pre-trained.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier, frozen
from bezoar.records import Dataset, Poison, as_float
from bezoar.seed import Seed
from bezoar.training.batches import Batch, batches, per_epoch
from bezoar.training.steps import steps

Transferred = Literal["linear", "end_to_end"]

RATES: dict[Transferred, tuple[float, float]] = {"linear": (0.1, 0.0), "end_to_end": (1e-4, 5e-4)}
"""Learning rate and weight decay."""
BATCH = 64
DECAYS = (0.5, 0.75)
AT_ONCE = 512


@dataclass(frozen=True)
class Answers:
    """What fine-tuned victims say; the last of t + 1 was fine-tuned without poisons and is asked for every target.

    Attributes:
        predicted: int64 [t], each victim's class of its own target.
        natural: int64 [t], what the unpoisoned one says.
        confidence: float [t], each victim's probability of the label that the attacker intends.
        learnt: float [t], the share of its poisons that a victim takes for what they are labelled.
        right: bool [t + 1, n], which test images are classified correctly.
    """

    predicted: Int64[Tensor, "t"]
    natural: Int64[Tensor, "t"]
    confidence: Float[Tensor, "t"]
    learnt: Float[Tensor, "t"]
    right: Bool[Tensor, "v n"]


@dataclass(frozen=True)
class Scene:
    """What the victims of one architecture share.

    Attributes:
        model: pre-trained.
        clean: what it is fine-tuned on.
        poisons: one for each target; all replace the same rows of `clean`.
        targets: one image each.
        test: what the referee measures clean accuracy on.
        intended: the label that the targets are to get.
        kept: bool [t + 1, n], which rows each victim trains on; all, unless a sanitizer has removed some.
    """

    model: Classifier
    clean: Dataset
    poisons: Sequence[Poison]
    targets: Dataset
    test: Dataset
    intended: int
    kept: Bool[Tensor, "v n"] | None = None

    @property
    def rows(self) -> Int64[Tensor, "k"]:
        """Which rows are replaced."""
        return self.poisons[0].rows

    def shares(self, device: torch.device) -> Float[Tensor, "v n"]:
        """One where a victim trains on a row, zero where it does not."""
        whole = torch.ones(len(self.poisons) + 1, len(self.clean))
        return (whole if self.kept is None else self.kept.float()).to(device)

    def pixels(self) -> Float[Tensor, "t k c h w"]:
        """The poisons in [0, 1]: as stored, or as the attack remembers them exactly."""
        return torch.stack([one.memory.get("exact", as_float(one.images)) for one in self.poisons])


Visit = Callable[[int, Classifier], None]
"""Is shown each victim: its number, and the model in evaluation mode."""


def fine_tuned(
    scene: Scene, how: Transferred, epochs: int, lab: Lab, seed: Seed, *, visit: Visit | None = None
) -> Answers:
    """Fine-tune one victim for each target and one without poisons; all see their images in the same order.

    A row that a victim does not keep is left out of the batch that it would be in.
    """
    return (_linear if how == "linear" else _end_to_end)(scene, epochs, lab, seed, visit)


def _linear(scene: Scene, epochs: int, lab: Lab, seed: Seed, visit: Visit | None) -> Answers:
    """Train all victims' heads in one batched run on cached features; the extractor is frozen."""
    model = frozen(scene.model).to(lab.device)
    clean, poisoned = (
        features_of(model, as_float(scene.clean.images())),
        features_of(model, scene.pixels().flatten(0, 1)),
    )
    count, size = len(scene.poisons), len(scene.rows)
    replaced = torch.cat([poisoned.unflatten(0, (count, size)), clean[scene.rows][None]])
    heads = _Heads(model, count + 1)
    labels = scene.clean.labels.to(lab.device)
    optimizer, schedule = _optimizer(heads, "linear", epochs, len(labels))
    shares = scene.shares(lab.device)
    place = torch.full((len(labels),), -1)
    place[scene.rows] = torch.arange(size)

    def objective(victims: _Heads, batch: Batch) -> Tensor:
        rows = batch.rows
        here = (place[rows] >= 0).nonzero()[:, 0]
        features = clean[rows].expand(count + 1, -1, -1)
        features = features.index_copy(1, here.to(lab.device), replaced[:, place[rows[here]]])
        wanted = batch.labels.expand(count + 1, -1)
        losses = nn.functional.cross_entropy(victims(features).flatten(0, 1), wanted.flatten(), reduction="none")
        weights = shares[:, rows]
        # a sum over victims of means over images: none of them notices the others
        return ((losses.view_as(weights) * weights).sum(1) / weights.sum(1).clamp_min(1)).sum()

    stream = batches(scene.clean, BATCH, seed, device=lab.device, epochs=epochs)
    taken = steps(heads, stream, objective, optimizer, seed=seed / "layers", schedule=schedule, training=False)
    deque(lab.progress.track(taken, "victims' heads", epochs * per_epoch(len(labels), BATCH)), maxlen=0)
    with torch.no_grad():
        targets = features_of(model, as_float(scene.targets.images()))
        test = features_of(model, as_float(scene.test.images()))
        own = torch.einsum("td,tcd->tc", targets, heads.weight[:-1]) + heads.bias[:-1]
        answers = [(test @ weight.T + bias).argmax(1) for weight, bias in zip(heads.weight, heads.bias, strict=True)]
        right = torch.stack(answers) == scene.test.labels.to(lab.device)
        learnt = heads(replaced).argmax(-1)[:-1] == scene.intended
    for number in range(count + 1 if visit is not None else 0):
        assert visit is not None
        visit(number, heads.model(model, number))
    natural = targets @ heads.weight[-1].T + heads.bias[-1]
    return _answers(own, natural, learnt, right, scene.intended)


def _end_to_end(scene: Scene, epochs: int, lab: Lab, seed: Seed, visit: Visit | None) -> Answers:
    """Train every parameter of one victim after the other, in evaluation mode."""
    pixels, clean = scene.pixels(), as_float(scene.clean.images())
    targets = as_float(scene.targets.images()).to(lab.device)
    test, own, learnt, right = as_float(scene.test.images()), [], [], []
    natural = torch.zeros(0)
    for number in lab.progress.track(range(len(pixels) + 1), "victims", len(pixels) + 1):
        images = clean.clone()
        if number < len(pixels):
            images[scene.rows] = pixels[number]
        model = scene.model.copy().to(lab.device).eval().requires_grad_(True)
        _train(model, scene.clean, images.to(lab.device), scene.shares(lab.device)[number], epochs, lab=lab, seed=seed)
        if visit is not None:
            visit(number, model)
        right.append(_logits(model, test).argmax(1) == scene.test.labels.to(lab.device))
        with torch.no_grad():
            if number == len(pixels):
                natural = model(targets)
                continue
            own.append(model(targets[number : number + 1])[0])
            learnt.append(model(pixels[number].to(lab.device)).argmax(1) == scene.intended)
    return _answers(torch.stack(own), natural, torch.stack(learnt), torch.stack(right), scene.intended)


def _train(
    model: Classifier, clean: Dataset, images: Tensor, shares: Float[Tensor, "n"], epochs: int, *, lab: Lab, seed: Seed
) -> None:
    """One victim's fine-tuning; its images are floats, so the stored ones only say which rows are meant."""
    optimizer, schedule = _optimizer(model, "end_to_end", epochs, len(clean))

    def objective(victim: Classifier, batch: Batch) -> Tensor:
        rows = batch.rows.to(images.device)
        losses = nn.functional.cross_entropy(victim(images[rows]), batch.labels, reduction="none")
        return (losses * shares[rows]).sum() / shares[rows].sum().clamp_min(1)

    stream = batches(clean, BATCH, seed, device=lab.device, epochs=epochs)
    for _ in steps(model, stream, objective, optimizer, seed=seed / "layers", schedule=schedule, training=False):
        pass


def _optimizer(
    model: nn.Module, how: Transferred, epochs: int, count: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam with the paper's rates and decays."""
    rate, decay = RATES[how]
    optimizer = torch.optim.Adam(model.parameters(), rate, weight_decay=decay)
    after = [round(part * epochs) * per_epoch(count, BATCH) for part in DECAYS]
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, after, 0.1)


def linear_head(model: Classifier) -> nn.Linear:
    """What a linear victim trains: a weight, and a bias if there is one.

    Raises:
        SettingError: the model ends in something else, such as a layer whose weight is computed from other parameters.
    """
    head = model.head
    if not isinstance(head, nn.Linear) or not dict(head.named_parameters()).keys() <= {"weight", "bias"}:
        raise SettingError(
            f"transfer: 'linear' trains a plain linear layer, and this architecture ends in a {type(head).__name__}; "
            "use transfer: end_to_end, or another architecture"
        )
    return head


class _Heads(nn.Module):
    """Copies of a model's linear head that are trained side by side; a head without bias gets none."""

    bias: Tensor

    def __init__(self, model: Classifier, count: int) -> None:
        super().__init__()
        head = linear_head(model)
        self.weight = nn.Parameter(head.weight.detach().expand(count, -1, -1).clone())
        bias = dict(head.named_parameters()).get("bias")
        if bias is None:  # zeros that are no parameter, so that no step moves them
            self.register_buffer("bias", torch.zeros(count, head.out_features).to(head.weight))
        else:
            self.bias = nn.Parameter(bias.detach().expand(count, -1).clone())

    def forward(self, features: Float[Tensor, "v b d"]) -> Float[Tensor, "v b c"]:
        """Every head's logits of its own features."""
        return torch.baddbmm(self.bias[:, None], features, self.weight.mT)

    def model(self, extractor: Classifier, number: int) -> Classifier:
        """A whole victim."""
        victim = extractor.copy()
        with torch.no_grad():
            for name, own in linear_head(victim).named_parameters():
                own.copy_(getattr(self, name)[number])
        return victim


def features_of(model: Classifier, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """Features of images, a few hundred at a time."""
    with torch.no_grad():
        return torch.cat([model.features(part.to(model.mean.device)).float() for part in images.split(AT_ONCE)])


def _logits(model: Classifier, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    with torch.no_grad():
        return torch.cat([model(part.to(model.mean.device)) for part in images.split(AT_ONCE)])


def _answers(own: Tensor, natural: Tensor, learnt: Tensor, right: Tensor, intended: int) -> Answers:
    return Answers(
        own.argmax(1).cpu(),
        natural.argmax(1).cpu(),
        own.softmax(1)[:, intended].detach().cpu(),
        learnt.float().mean(1).cpu(),
        right.cpu(),
    )
