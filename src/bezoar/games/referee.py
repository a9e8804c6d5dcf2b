"""The referee: makes the stages that games share, once, and hands each player exactly what its role may see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch

from bezoar.component import Component, canonical, digest
from bezoar.errors import SettingError
from bezoar.games.packing import (
    Memory,
    pack_inspection,
    pack_poison,
    pack_splits,
    prefixed,
    unpack_inspection,
    unpack_poison,
    unpack_splits,
    without_prefix,
)
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.records import Dataset, Inspection, Poison, Probe, Trusted
from bezoar.roles import (
    Architecture,
    Attack,
    Backdoor,
    CodePoisoning,
    DataPoisoning,
    DataSource,
    Detector,
    Splits,
    Trainer,
    Trigger,
)
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

    @property
    def made(self) -> Architecture:
        """What the trained model is an instance of."""
        return self.trainer.makes(self.architecture)

    def identity(self) -> dict[str, Any]:
        """What an address is made from."""
        return {"architecture": self.architecture.identity(), "trainer": self.trainer.identity()}


@dataclass(frozen=True)
class Attacked:
    """What an attack has led to.

    Attributes:
        model: the victim's, trained on poisoned data or supplied by the attacker.
        probe: the attacked test images.
        address: of what the attacker made.
    """

    model: Made[Classifier]
    probe: Probe
    address: str


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
    _fingerprints: dict[str, str] = field(default_factory=dict[str, str], repr=False, compare=False)

    def publishing(self, recipe: Recipe) -> Referee:
        """The same referee with the victim's recipe made public to all players, as `Lab.train`."""
        return replace(self, lab=replace(self.lab, architecture=recipe.architecture, trainer=recipe.trainer))

    def fingerprint(self, source: DataSource) -> str:
        """What tells the files of a data set from others of its name; they are looked at once."""
        key = canonical(source.identity())
        if key not in self._fingerprints:
            self._fingerprints[key] = source.fingerprint(self.folders)
        return self._fingerprints[key]

    def splits(self, source: DataSource) -> Made[Splits]:
        """Both halves of a data set; one that is computed rather than read is kept in the store."""
        stage = Stage("data", {"source": source.identity(), "files": self.fingerprint(source)})
        if not source.generated:
            return Made(source.load(self.folders), stage.address)
        artefact = self.store.make(stage, lambda: pack_splits(source.load(self.folders)))
        return Made(unpack_splits(artefact), stage.address)

    def attacked(self, data: Made[Splits], attack: Backdoor, recipe: Recipe, seed: Seed) -> Attacked:
        """Let an attacker do what its role allows, and the victim train where that is left to it.

        Raises:
            SettingError: the attack is neither a data poisoning nor a code poisoning.
        """
        if isinstance(attack, DataPoisoning):
            poison = self.collect(data, attack, seed)
            model = self.train(data, poison, recipe, seed)
            return Attacked(model, self.probe(data, attack, poison.value.memory, seed), poison.address)
        if isinstance(attack, CodePoisoning):
            model, memory = self.supply(data, attack, recipe, seed)
            return Attacked(model, self.probe(data, attack, memory, seed), model.address)
        raise SettingError(f"attack: {attack.kind!r} poisons neither data nor code, so this game cannot play it")

    def collect(self, data: Made[Splits], attack: DataPoisoning, seed: Seed) -> Made[Poison]:
        """What the attacker changes in the training data."""
        lab = self.attackers_lab(data, attack, seed)
        settings = {"attack": attack.identity()}
        if attack.reads_recipe and self.lab.trainer is not None:
            settings["trainer"] = self.lab.trainer.identity()
        if attack.trains_recipe and self.lab.architecture is not None:
            settings["architecture"] = self.lab.architecture.identity()
        stage = Stage("collect", settings, str(seed / "collect"), _inputs(data, lab))

        def compute() -> Artefact:
            return pack_poison(attack.poison(data.value.train, lab.value, seed / "collect"))

        return Made(unpack_poison(self.store.make(stage, compute)), stage.address)

    def supply(
        self, data: Made[Splits], attack: CodePoisoning, recipe: Recipe, seed: Seed
    ) -> tuple[Made[Classifier], Memory]:
        """The model that a code poisoner trains in the victim's place, and what it remembers."""
        lab = self.attackers_lab(data, attack, seed)
        settings = {"attack": attack.identity(), **recipe.identity()}
        stage = Stage("supply", settings, str(seed / "supply"), _inputs(data, lab))

        def compute() -> Artefact:
            shipment = attack.supply(data.value.train, lab.value, seed / "supply")
            return Artefact({**prefixed("model", shipment.model.weights()), **prefixed("memory", shipment.memory)})

        tensors = self.store.make(stage, compute).tensors
        model = self._model(recipe, data.value.train, without_prefix("model", tensors))
        return Made(model, stage.address), without_prefix("memory", tensors)

    def probe(self, data: Made[Splits], attack: Backdoor, memory: Memory, seed: Seed) -> Probe:
        """The attacked test images; cheap to make, so not kept."""
        lab = self.attackers_lab(data, attack, seed).value
        return attack.probe(data.value.test, memory, lab, seed / "probe")

    def attackers_lab(self, data: Made[Splits], attacker: Attack | Trigger, seed: Seed) -> Made[Lab]:
        """The lab of an attacker: with the surrogate that it asked for, and an address that stands for that."""
        wanted = attacker.wanted_model
        if wanted is None:
            return Made(self.lab, "")
        if self.lab.architecture is None or self.lab.trainer is None:
            raise SettingError("an attack with a surrogate needs the victim's recipe: see Referee.publishing")
        recipe, seed = Recipe(self.lab.architecture, self.lab.trainer), seed / "surrogate"
        train = data.value.train
        model = wanted.obtain(train.shape, lambda: self.train(data, None, recipe, seed).value)
        facts = {"surrogate": wanted.identity(), "files": wanted.fingerprint(), "seed": str(seed), **recipe.identity()}
        return Made(replace(self.lab, surrogate=model.to(self.lab.device)), digest({**facts, "data": data.address}))

    def train(
        self,
        data: Made[Splits],
        poison: Made[Poison] | None,
        recipe: Recipe,
        seed: Seed,
        *,
        kept: Made[torch.Tensor] | None = None,
    ) -> Made[Classifier]:
        """The victim's model: on the poisoned data, or on the clean data where there is no poison.

        The seed names neither the game nor the attack, so that a poisoned model and its clean twin
        share initialisation and order, and all games share both. With `kept`, int64 [k], it trains on
        these rows of the data alone.
        """
        seed = seed / "train"
        made = {"poison": poison, "kept": kept}
        inputs = {"data": data.address} | {name: one.address for name, one in made.items() if one is not None}
        stage = Stage("train", recipe.identity(), str(seed), inputs)
        train = data.value.train if poison is None else poison.value.apply(data.value.train)
        train = train if kept is None else train.take(kept.value)

        def compute() -> Artefact:
            return Artefact(recipe.trainer.train(recipe.architecture, train, self.lab, seed).weights())

        artefact = self.store.make(stage, compute)
        return Made(self._model(recipe, data.value.train, artefact.tensors), stage.address)

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
            return pack_inspection(detector.inspect(model.value, trusted.value, self.lab, seed))

        return Made(unpack_inspection(self.store.make(stage, compute)), stage.address)

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

    def untrained(self, recipe: Recipe, data: Dataset) -> Classifier:
        """A model as the recipe makes it of such data, but with fresh weights: for looking at its shapes."""
        model = recipe.made.build(data.shape, data.classes, Seed(0)).to(self.lab.device)
        return model.to(memory_format=torch.channels_last).eval()

    def _model(self, recipe: Recipe, data: Dataset, weights: Memory) -> Classifier:
        model = self.untrained(recipe, data)
        model.load_state_dict(dict(weights))
        return model


def _inputs(data: Made[Splits], lab: Made[Lab]) -> dict[str, str]:
    return {"data": data.address} | ({"surrogate": lab.address} if lab.address else {})
