"""The certification game: whether a poisoned model still gets its answers certified, on clean and on stamped images."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from bezoar.component import digest, register
from bezoar.errors import SettingError
from bezoar.games.game import SanitizedGame
from bezoar.games.packing import pack_certificates, unpack_certificates
from bezoar.games.referee import Attacked, Deal, Made, Referee
from bezoar.games.sanitizing import sanitized
from bezoar.measure.certified import Reading, lost, systems
from bezoar.measure.estimates import auc, proportion
from bezoar.models.classifier import Classifier, frozen
from bezoar.records import Certificates, as_float
from bezoar.roles import Certifier, DataPoisoning, Guard, Repairer
from bezoar.seed import Seed
from bezoar.store import Artefact, Stage

FALSE_ALARMS = 0.05
"""The share of clean queries that a guard may flag."""


@dataclass(frozen=True)
class Queries:
    """The images that are certified.

    Attributes:
        images: uint8 [n, c, h, w].
        labels: int64 [n], their true labels.
        groups: int64 [n] or None, which of them are not independent.
        address: which they are.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"]
    groups: Int64[Tensor, "n"] | None
    address: str


@dataclass(frozen=True)
class Pair:
    """What a certifier says of clean and of stamped images, of one model."""

    clean: Reading
    stamped: Reading

    def as_json(self, largest: float) -> dict[str, Any]:
        """Both readings as plain values."""
        return {"clean": self.clean.as_json(largest), "stamped": self.stamped.as_json(largest)}


@register("certification", paper="arXiv:2108.11299")
class Certification(SanitizedGame):
    """A poisoned model and its unpoisoned twin under one certifier, on the same clean and the same stamped images.

    A deployed system takes an answer that is certified and falls back on something slower, dearer or weaker where it
    is not. So an attack on availability takes certificates away from stamped images (`certified` falls), and one on
    integrity has wrong answers certified (`certified_wrong` rises). The headline is what certificates are lost against
    the twin on the **same stamped images**: a stamp costs certificates by itself. Twins share a seed.
    The paper's text beyond its abstract is not at hand; this game is our reconstruction (`specs/certification.md`).

    With a `sanitizer` or a `repairer` the model that is certified is what the defence makes of the poisoned one, and
    `undefended` says what was before; a `guard` looks at the queries instead.

    Attributes:
        certifier: who vouches; it sees the model and the images alone.
        images: of the test set are certified, evenly spread over it.
        fallback_accuracy: how often a fallback is right, where it is asked; null for as often as the twin is on clean
            images. Each is read with every capacity.
        capacity: for which share of all queries the fallback has time; null for all.
        sanitizer, removed: who ranks the rows, and what share of them goes before the victim trains again.
        repairer: who repairs the model, with the trusted images, to the end.
        guard: who looks at queries.
    """

    certifier: Certifier
    images: Annotated[int, Field(ge=2)] = 500
    fallback_accuracy: tuple[Annotated[float, Field(ge=0, le=1)] | None, ...] = (0.5, None)
    capacity: tuple[Annotated[float, Field(ge=0, le=1)] | None, ...] = (0.05, 0.1, None)
    repairer: Repairer | None = None
    guard: Guard | None = None

    defences: ClassVar[tuple[str, ...]] = ("sanitizer", "repairer", "guard")

    @model_validator(mode="after")
    def _one_defence(self) -> Certification:
        given = [name for name in self.defences if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: a game measures one defence at a time; leave the others out")
        return self

    def play(self, referee: Referee) -> dict[str, Any]:
        """Poison, train both models, certify both on clean and on stamped images, and compare."""
        referee = referee.publishing(self.recipe)
        seed = Seed(self.seed)
        deal = self.deal(referee, seed)
        self._require(referee, deal)
        attacked = referee.attacked(deal.data, self.attack, self.recipe, seed)
        twin = referee.train(deal.data, None, self.recipe, seed)
        clean, stamped = self._queries(deal, attacked)
        largest = 2 * self.certifier.demanded

        def pair(model: Made[Classifier]) -> Pair:
            return Pair(*(self._reading(referee, model, queries, seed) for queries in (clean, stamped)))

        before, natural = pair(attacked.model), pair(twin)
        result: dict[str, Any] = {"twin": natural.as_json(largest)}
        after = before
        if self.sanitizer is not None or self.repairer is not None:
            model, facts = self._defended(referee, deal, attacked, seed)
            after = pair(model)
            result |= {"undefended": before.as_json(largest), "defence": facts}
            result |= {"recovered": lost(after.stamped, before.stamped), "given_up": lost(before.clean, after.clean)}
        result |= {"suspect": after.as_json(largest), "drop": lost(natural.stamped, after.stamped)}
        result |= {"stealth": lost(natural.clean, after.clean)}
        as_the_twin = natural.clean.share(natural.clean.right).value
        accuracies = [as_the_twin if one is None else one for one in self.fallback_accuracy]
        result["systems"] = systems(after.stamped, natural.stamped, accuracies, self.capacity)
        if self.guard is not None:
            result["guard"] = self._guarded(self.guard, referee, deal, attacked.model, (clean, stamped), seed)
        return result

    def _require(self, referee: Referee, deal: Deal) -> None:
        """Refuse, before anything is trained, what could not be certified afterwards."""
        test = deal.data.value.test
        if self.images > len(test):
            raise SettingError(f"images: {self.images} is too many; the data have {len(test)} test images")
        self.certifier.require(referee.untrained(self.recipe, test), test.shape)

    def _queries(self, deal: Deal, attacked: Attacked) -> tuple[Queries, Queries]:
        """The clean test images that are certified, and those of them that the attack stamps."""
        test, probe = deal.data.value.test, attacked.probe
        chosen = torch.arange(self.images) * len(test) // self.images
        facts = {"data": deal.data.address, "images": self.images}
        groups = test.groups
        clean = Queries(
            test.batch(chosen), test.labels[chosen], None if groups is None else groups[chosen], digest(facts)
        )
        among = torch.isin(probe.rows, chosen)
        rows = probe.rows[among]
        facts |= {"poison": attacked.address, "attack": self.attack.identity()}
        stamped = Queries(
            probe.images[among], test.labels[rows], None if groups is None else groups[rows], digest(facts)
        )
        return clean, stamped

    def _reading(self, referee: Referee, model: Made[Classifier], queries: Queries, seed: Seed) -> Reading:
        """What the certifier says of a model's answers, as a stage; suspect and twin meet the same noise."""
        stream = seed / "certify"
        inputs = {"model": model.address, "images": queries.address}
        stage = Stage("certify", {"certifier": self.certifier.identity()}, str(stream), inputs)

        def compute() -> Artefact:
            images = as_float(queries.images).to(referee.lab.device)
            return pack_certificates(self.certifier.certify(frozen(model.value), images, referee.lab, stream))

        certificates: Certificates = unpack_certificates(referee.store.make(stage, compute))
        return Reading(certificates, queries.labels, queries.groups)

    def _defended(
        self, referee: Referee, deal: Deal, attacked: Attacked, seed: Seed
    ) -> tuple[Made[Classifier], dict[str, Any]]:
        """The model that a sanitizer or a repairer leads to, and what else is to be said of that."""
        if self.sanitizer is not None:
            assert isinstance(self.attack, DataPoisoning)
            done = sanitized(
                referee,
                deal.data,
                self.attack,
                attacked,
                self.recipe,
                seed,
                sanitizer=self.sanitizer,
                removed=self.removed,
            )
            return done.attacked.model, done.facts
        assert self.repairer is not None
        return _repaired(self.repairer, referee, deal, attacked.model, seed), {}

    def _guarded(
        self,
        guard: Guard,
        referee: Referee,
        deal: Deal,
        model: Made[Classifier],
        queries: tuple[Queries, Queries],
        seed: Seed,
    ) -> dict[str, Any]:
        """How well a guard tells stamped from clean queries, and what it flags where 5 % of the clean are."""
        stream = seed / "guard"
        trusted = deal.trusted.value

        def compute() -> dict[str, Any]:
            clean, stamped = (
                guard.suspicion(
                    frozen(model.value), as_float(one.images).to(referee.lab.device), trusted, referee.lab, stream
                )
                for one in queries
            )
            flagged = stamped > clean.quantile(1 - FALSE_ALARMS)
            same = queries[0].groups is None
            groups = None if same else (_list(queries[1].groups), _list(queries[0].groups))
            return {
                "auc": auc(stamped.tolist(), clean.tolist(), groups, unit="images").as_json(),
                "flagged": proportion(flagged, queries[1].groups).as_json(),
            }

        inputs = {"model": model.address, "trusted": deal.trusted.address}
        inputs |= {"clean": queries[0].address, "stamped": queries[1].address}
        return referee.measured("guard", {"guard": guard}, {}, inputs, stream, compute)


def _list(groups: Int64[Tensor, "n"] | None) -> list[int]:
    return [] if groups is None else groups.tolist()


def _repaired(
    repairer: Repairer, referee: Referee, deal: Deal, suspect: Made[Classifier], seed: Seed
) -> Made[Classifier]:
    """The model after a repair with all trusted images, to the end, as a stage."""
    stream = seed / "repair" / "all"
    inputs = {"model": suspect.address, "trusted": deal.trusted.address}
    stage = Stage("repaired", {"repairer": repairer.identity()}, str(stream), inputs)

    def compute() -> Artefact:
        models = repairer.repair(suspect.value, deal.trusted.value, referee.lab, stream)
        watched = referee.lab.progress.track(models, "repairing", repairer.length)
        return Artefact(deque(watched, maxlen=1).pop().weights())

    model = suspect.value.copy()
    model.load_state_dict(dict(referee.store.make(stage, compute).tensors))
    return replace(suspect, value=model.eval(), address=stage.address)
