"""The referee: makes the stages that games share, once, and hands each player exactly what its role may see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch

from bezoar.component import Component, digest
from bezoar.errors import SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Inspection, Poison, Probe, Trusted
from bezoar.roles import Architecture, DataPoisoning, DataSource, Detector, Splits, Trainer
from bezoar.seed import Seed
from bezoar.store import Artefact, Stage, Store

Value = TypeVar("Value")


@dataclass(frozen=True)
class Made(Generic[Value]):
    """What a stage made, and its address, on which later stages build."""

    value: Value
    address: str


TrustedSource = Literal["train", "held_out"]


@dataclass(frozen=True)
class Deal:
    """Who gets which images: the victim's data with the referee's test set, and the defender's trusted images."""

    data: Made[Splits]
    trusted: Made[Trusted]


@dataclass(frozen=True)
class Recipe:
    """How the victim trains, which is public: architecture and trainer."""

    architecture: Architecture
    trainer: Trainer


@dataclass(frozen=True)
class Referee:
    """Runs stages through the store.

    Attributes:
        store: where stages are kept.
        lab: device and progress for the players.
        folders: where data sets are looked for.
    """

    store: Store
    lab: Lab = field(default_factory=Lab)
    folders: tuple[Path, ...] = ()

    def publishing(self, recipe: Recipe) -> Referee:
        """The same referee with the victim's recipe made public to all players, as `Lab.train`."""
        return replace(self, lab=replace(self.lab, architecture=recipe.architecture, trainer=recipe.trainer))

    def splits(self, source: DataSource) -> Made[Splits]:
        """Both halves of a data set; one that is computed rather than read is kept in the store."""
        stage = Stage("data", {"source": source.identity(), "files": source.fingerprint(self.folders)})
        if not source.generated:
            return Made(source.load(self.folders), stage.address)
        artefact = self.store.make(stage, lambda: _pack_splits(source.load(self.folders)))
        return Made(_unpack_splits(artefact), stage.address)

    def collect(self, data: Made[Splits], attack: DataPoisoning, seed: Seed) -> Made[Poison]:
        """What the attacker changes in the training data."""
        seed = seed / "collect"
        stage = Stage("collect", {"attack": attack.identity()}, str(seed), {"data": data.address})
        artefact = self.store.make(stage, lambda: _pack_poison(attack.poison(data.value.train, self.lab, seed)))
        return Made(_unpack_poison(artefact), stage.address)

    def probe(self, data: Made[Splits], attack: DataPoisoning, poison: Made[Poison], seed: Seed) -> Probe:
        """The attacked test images; cheap to make, so not kept."""
        return attack.probe(data.value.test, poison.value.memory, self.lab, seed / "probe")

    def train(self, data: Made[Splits], poison: Made[Poison] | None, recipe: Recipe, seed: Seed) -> Made[Classifier]:
        """The victim's model: on the poisoned data, or on the clean data where there is no poison.

        The seed names neither the game nor the attack, so that a poisoned model and its clean twin
        share initialisation and order, and all games share both.
        """
        seed = seed / "train"
        inputs = {"data": data.address} | ({} if poison is None else {"poison": poison.address})
        settings = {"architecture": recipe.architecture.identity(), "trainer": recipe.trainer.identity()}
        stage = Stage("train", settings, str(seed), inputs)
        train = data.value.train if poison is None else poison.value.apply(data.value.train)

        def compute() -> Artefact:
            return Artefact(recipe.trainer.train(recipe.architecture, train, self.lab, seed).weights())

        artefact = self.store.make(stage, compute)
        return Made(self._model(recipe, data.value.train, artefact), stage.address)

    def deal(self, pool: Made[Splits], count: int, source: TrustedSource, seed: Seed) -> Deal:
        """The defender's images, and what is left for the victim to collect.

        Trusted images are drawn from the training data without replacement. With ``train`` (spec A15)
        the victim trains on them too; with ``held_out`` they are set aside first, as in Algorithm 1,
        where they are a fresh draw, and with them all images that show one of the same objects: a model
        that has learnt an object's other images by heart looks better on it than it is.
        """
        train = pool.value.train
        if count >= len(train):
            raise SettingError(f"trusted: {count} is too many; the data has {len(train)} training images")
        seed = seed / "trusted"
        order = seed.permutation(len(train))
        stage = Stage("trusted", {"count": count, "source": source}, str(seed), {"data": pool.address})
        trusted = Made(Trusted.of(train.take(order[:count])), stage.address)
        if source == "train":
            return Deal(pool, trusted)
        rest = order[count:].sort().values
        if train.groups is not None:
            rest = rest[~torch.isin(train.groups[rest], train.groups[order[:count]])]
        return Deal(Made(Splits(train.take(rest), pool.value.test), digest({"apart_from": stage.address})), trusted)

    def inspect(
        self, model: Made[Classifier], detector: Detector, trusted: Made[Trusted], seed: Seed
    ) -> Made[Inspection]:
        """What a detector says of a model, given trusted images alone."""
        seed = seed / "inspect"
        inputs = {"model": model.address, "trusted": trusted.address}
        stage = Stage("inspect", {"detector": detector.identity()}, str(seed), inputs)

        def compute() -> Artefact:
            return _pack_inspection(detector.inspect(model.value, trusted.value, self.lab, seed))

        return Made(_unpack_inspection(self.store.make(stage, compute)), stage.address)

    def measured(
        self,
        name: str,
        players: dict[str, Component],
        plain: dict[str, Any],
        inputs: dict[str, str],
        seed: Seed,
        compute: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """A stage whose result is facts alone, e.g. a repair curve."""
        settings = {**{role: player.identity() for role, player in players.items()}, **plain}
        stage = Stage(name, settings, str(seed), inputs)
        return dict(self.store.make(stage, lambda: Artefact(facts=compute())).facts)

    def _model(self, recipe: Recipe, data: Dataset, artefact: Artefact) -> Classifier:
        model = recipe.architecture.build(data.shape, data.classes, Seed(0))
        model.load_state_dict(dict(artefact.tensors))
        return model.to(self.lab.device).to(memory_format=torch.channels_last).eval()


def _pack_splits(splits: Splits) -> Artefact:
    tensors: dict[str, torch.Tensor] = {}
    for name, part in (("train", splits.train), ("test", splits.test)):
        tensors |= {f"{name}.images": part.images(), f"{name}.labels": part.labels}
        if part.groups is not None:
            tensors[f"{name}.groups"] = part.groups
    return Artefact(tensors, {"classes": list(splits.train.classes)})


def _unpack_splits(artefact: Artefact) -> Splits:
    classes = tuple(artefact.facts["classes"])
    parts = (
        Dataset.in_memory(
            artefact.tensors[f"{name}.images"],
            artefact.tensors[f"{name}.labels"],
            classes,
            artefact.tensors.get(f"{name}.groups"),
        )
        for name in ("train", "test")
    )
    return Splits(*parts)


def _pack_poison(poison: Poison) -> Artefact:
    tensors = {"rows": poison.rows, "images": poison.images, "labels": poison.labels}
    return Artefact(tensors | {f"memory.{name}": t for name, t in poison.memory.items()}, {"boost": poison.boost})


def _unpack_poison(artefact: Artefact) -> Poison:
    tensors = artefact.tensors
    memory = {name.removeprefix("memory."): t for name, t in tensors.items() if name.startswith("memory.")}
    return Poison(tensors["rows"], tensors["images"], tensors["labels"], artefact.facts["boost"], memory)


def _pack_inspection(inspection: Inspection) -> Artefact:
    tensors = {"scores": inspection.scores}
    if inspection.triggers is not None:
        tensors["triggers"] = inspection.triggers
    if inspection.masks is not None:
        tensors["masks"] = inspection.masks
    evidence = {f"evidence.{name}": t for name, t in inspection.evidence.items()}
    return Artefact(tensors | evidence, {"abstained": inspection.abstained})


def _unpack_inspection(artefact: Artefact) -> Inspection:
    tensors = artefact.tensors
    evidence = {name.removeprefix("evidence."): t for name, t in tensors.items() if name.startswith("evidence.")}
    return Inspection(
        tensors["scores"], tensors.get("triggers"), tensors.get("masks"), evidence, artefact.facts["abstained"]
    )
