"""The transfer game (Zhu et al., section 4): whether poisons made on substitutes mislead a victim never seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor

from bezoar.attacks.convex_polytope import polytope
from bezoar.attacks.feature_collision import collision
from bezoar.component import Component, Settings, canonical, digest, register
from bezoar.errors import SettingError
from bezoar.games.crafting import Crafts, check, craft
from bezoar.games.examining import Defence, Examined
from bezoar.games.game import Game
from bezoar.games.referee import Made, Recipe, Referee
from bezoar.games.sanitizing import Ranked, how_many
from bezoar.games.victims import Scene, Transferred, features_of, fine_tuned, linear_head
from bezoar.measure.estimates import mean, proportion
from bezoar.measure.predictions import clean_accuracy
from bezoar.models.classifier import frozen
from bezoar.records import Trusted, as_float
from bezoar.roles import Detector, Repairer, Sanitizer, Splits, TargetedPoisoning
from bezoar.seed import Seed

Share = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]


@register("transfer", paper="arXiv:1905.05897, section 4")
class Transfer(Game):
    """Substitutes are pre-trained, poisons crafted on them, and a victim of its own pre-training fine-tunes on these.

    The data are split by their order within each class: `pretraining` images of every class for pre-training, the next
    `fine_tuning` for fine-tuning, where the poisons stand in the place of their bases, and the next `targets` of the
    class `target_class` are the targets. Each target is attacked for itself, and misleads a victim of its own. An
    attack succeeds if the victim gives the target the poisons' label; the base rate is how often an unpoisoned one
    does so by itself.

    Attributes:
        architecture: the victim's; it is black-box where the attack has no substitute of the kind.
        trainer: of the pre-training, the victim's and the substitutes'.
        transfer: whether the victim trains its head on a frozen extractor (`linear`), or everything.
        epochs: of fine-tuning.
        substitute_data, victim_data: from which to which part of the images for pre-training they are trained on.
        victim: pre-trained by itself (`own`), or the attacker's substitute of that architecture (`substitute`): a white
            box, which shows what the poisons are worth before they have to transfer.
        every: at every so many steps the referee alone looks how near the poisons are to the target in the victim.
        sanitizer, removed: who ranks each victim's rows by that victim's features, and what share of them goes before
            it is fine-tuned once more, on the rest.
        repairer, detector: who repairs victims, or tells them from one without poisons (`Examined`): those of the first
            `examined` targets, as they are after a sanitizer.
        trusted: clean images for these two, of the data that serve nothing else: no network has seen them.
        budget, repair_every: accuracy that a repair may cost, and at every so many of its steps the referee looks.
    """

    added: ClassVar[frozenset[str]] = frozenset(
        {"sanitizer", "removed", "victim", "repairer", "detector", "trusted", "examined", "budget", "repair_every"}
    )

    attack: TargetedPoisoning
    transfer: Transferred = "linear"
    epochs: Annotated[int, Field(ge=1)] = 60
    pretraining: Annotated[int, Field(ge=1)] = 4800
    fine_tuning: Annotated[int, Field(ge=2)] = 50
    targets: Annotated[int, Field(ge=2)] = 50
    target_class: Annotated[int, Field(ge=0)] = 6
    substitute_data: Share = (0.0, 1.0)
    victim_data: Share = (0.0, 1.0)
    every: Annotated[int, Field(ge=1)] | None = None
    sanitizer: Sanitizer | None = None
    removed: Annotated[float, Field(gt=0, lt=1)] = 0.05
    victim: Literal["own", "substitute"] = "own"
    repairer: Repairer | None = None
    detector: Detector | None = None
    trusted: Annotated[int, Field(ge=2)] = 500
    examined: Annotated[int, Field(ge=1)] = 5
    budget: Annotated[float, Field(ge=0, le=1)] = 0.02
    repair_every: Annotated[int, Field(ge=1)] = 50

    @model_validator(mode="after")
    def _shares_hold_images(self) -> Transfer:
        for name in ("substitute_data", "victim_data"):
            first, last = getattr(self, name)
            if round(first * self.pretraining) >= round(last * self.pretraining):
                raise ValueError(f"{name}: from {first} to {last} there is no image of {self.pretraining} a class")
        if self.target_class == self.attack.intended:
            raise ValueError(f"target_class: {self.target_class} is the label that the attack intends already")
        if self.repairer is not None and self.examined < 2:
            raise ValueError("examined: a repair's means need two victims, or they have no interval")
        kinds = [one.kind for one in self.attack.networks]  # one without the dropout that is asked for is refused here
        if self.victim == "substitute" and self.architecture.kind not in kinds:
            raise ValueError(f"victim: no substitute is a {self.architecture.kind}; they are {', '.join(kinds)}")
        return self

    def trainings(self) -> set[str]:
        """The victim and the substitutes."""
        return set(self.recipes())

    def recipes(self) -> dict[str, Recipe]:
        """Each network by the same trainer."""
        networks = {f"substitutes/{at}": (one, self.substitute_data) for at, one in enumerate(self.attack.networks)}
        if self.victim == "own":
            networks["victim"] = (self.architecture, self.victim_data)
        recipes = {name: (Recipe(one, self.trainer), share) for name, (one, share) in networks.items()}
        return {self._facts(recipe, share, name): recipe for name, (recipe, share) in recipes.items()}

    def _facts(self, recipe: Recipe, share: Share, name: str) -> str:
        facts: Settings = {"data": self.data.identity(), "pretraining": self.pretraining, "share": list(share)}
        return canonical({**facts, "seed": f"{self.seed}/{name}", **recipe.identity()})

    def play(self, referee: Referee) -> dict[str, Any]:
        """Pre-train, craft, fine-tune, measure."""
        seed, data = Seed(self.seed), referee.splits(self.data)
        rows = divided(data.value.train.labels, self)
        trusted = rows.trusted(seed / "trusted") if self._examines else None
        if self.sanitizer is not None:
            how_many(self.removed, len(rows.fine_tuning))
        tuning = self._part(data, rows.fine_tuning, "fine_tuning")
        targets = Made(data.value.train.take(rows.targets), digest(rows.targets.tolist()))
        check(referee, self.attack, self.trainer, tuning, targets)
        if self.transfer == "linear":
            linear_head(referee.untrained(self.recipe, tuning.value.train))
        learnt = self._part(data, rows.pretraining(self.substitute_data), f"pretraining/{self.substitute_data}")
        substitutes = [
            referee.train(learnt, None, Recipe(one, self.trainer), seed / "substitutes" / at)
            for at, one in enumerate(self.attack.networks)
        ]
        given = [Made(frozen(one.value), one.address) for one in substitutes]
        made = craft(referee, self.attack, tuning, targets, given, every=self.every, seed=seed)
        if self.victim == "own":
            own = self._part(data, rows.pretraining(self.victim_data), f"pretraining/{self.victim_data}")
            victim = referee.train(own, None, self.recipe, seed / "victim")
        else:
            victim = substitutes[[one.kind for one in self.attack.networks].index(self.architecture.kind)]
        test = data.value.test
        scene = Scene(victim.value, tuning.value.train, made.value.last, targets.value, test, self.attack.intended)
        stream = seed / "fine_tuning"
        defence = None if trusted is None else self._defence(Trusted.of(data.value.train.take(trusted)))

        def compute() -> dict[str, Any]:
            return self._measured(scene, made.value, rows.targets, referee, stream, defence=defence)

        players: dict[str, Component] = {} if self.sanitizer is None else {"sanitizer": self.sanitizer}
        plain: Settings = {"transfer": self.transfer, "epochs": self.epochs, "intended": self.attack.intended}
        plain |= {} if self.sanitizer is None else {"removed": self.removed}
        inputs = {"victim": victim.address, "poisons": made.address}
        if defence is not None and trusted is not None:
            players |= defence.players()
            plain |= defence.plain()
            inputs["trusted"] = digest({"data": data.address, "rows": trusted.tolist()})
        return referee.measured("transfer", players, plain, inputs, stream, compute)

    @property
    def _examines(self) -> bool:
        """Whether anybody looks at victims, who needs trusted images for that."""
        return self.repairer is not None or self.detector is not None

    def _defence(self, trusted: Trusted) -> Defence:
        return Defence(self.repairer, self.detector, trusted, self.examined, self.budget, self.repair_every)

    def _part(self, data: Made[Splits], rows: Int64[Tensor, "n"], name: str) -> Made[Splits]:
        """Some training rows with the test set; their address says which."""
        facts = {"data": data.address, "part": name, "sizes": [self.pretraining, self.fine_tuning]}
        return Made(Splits(data.value.train.take(rows), data.value.test), digest(facts))

    def _measured(
        self,
        scene: Scene,
        crafts: Crafts,
        rows: Int64[Tensor, "t"],
        referee: Referee,
        seed: Seed,
        *,
        defence: Defence | None,
    ) -> dict[str, Any]:
        """What the victims have become, and how near to the targets the poisons were in the pre-trained one."""
        ranked = None if self.sanitizer is None else Ranked(scene, self.sanitizer, self.removed, referee.lab, seed)
        lab = referee.publishing(self.recipe).lab
        examined = None if defence is None else Examined(scene, defence, lab, seed / "examined")
        found = fine_tuned(scene, self.transfer, self.epochs, referee.lab, seed, visit=ranked or examined)
        hits, natural = found.predicted == scene.intended, found.natural == scene.intended
        poisoned = found.right[:-1].float().mean(1).tolist()
        groups = scene.test.groups
        hull, apart = self._nearness(scene, crafts)
        return {
            "success": proportion(hits, unit="targets").as_json(),
            "base_rate": proportion(natural, unit="targets").as_json(),
            "clean_accuracy": {
                "pretrained": clean_accuracy(scene.model, scene.test).as_json(),
                "fine_tuned": proportion(found.right[-1], groups).as_json(),
                "poisoned": mean(poisoned, "targets").as_json(),
            },
            "targets": [
                {
                    "row": int(rows[at]),
                    "predicted": int(found.predicted[at]),
                    "natural": int(found.natural[at]),
                    "confidence": float(found.confidence[at]),
                    "learnt": float(found.learnt[at]),
                    "loss": float(crafts.losses[-1, at]),
                    "victim_polytope": float(hull[-1, at]),
                    "victim_collision": float(apart[-1, at]),
                }
                for at in range(len(rows))
            ],
            "looks": [
                {
                    "step": step,
                    "substitutes": float(crafts.losses[at].mean()),
                    "victim_polytope": float(hull[at].mean()),
                    "victim_collision": float(apart[at].mean()),
                }
                for at, step in enumerate(crafts.steps)
            ],
            **({} if ranked is None else {"sanitized": self._sanitized(scene, ranked, referee, seed, examined)}),
            **({} if examined is None else examined.facts()),
        }

    def _sanitized(
        self, scene: Scene, ranked: Ranked, referee: Referee, seed: Seed, examined: Examined | None
    ) -> dict[str, Any]:
        """What is left of the attack where every victim is fine-tuned again without its most suspicious rows."""
        cleaned = replace(scene, kept=ranked.kept)
        again = fine_tuned(cleaned, self.transfer, self.epochs, referee.lab, seed, visit=examined)
        return {
            **ranked.facts(),
            "success": proportion(again.predicted == scene.intended, unit="targets").as_json(),
            "clean_accuracy": mean(again.right[:-1].float().mean(1).tolist(), "targets").as_json(),
        }

    def _nearness(self, scene: Scene, crafts: Crafts) -> tuple[Float[Tensor, "looks t"], Float[Tensor, "looks t"]]:
        """Eq. 3 and Eq. 2 in the pre-trained victim's features, at every look."""
        model = frozen(scene.model)
        wanted = features_of(model, as_float(scene.targets.images()))
        hull: list[Tensor] = []
        apart: list[Tensor] = []
        for few in crafts.poisons:
            seen = torch.stack([features_of(model, as_float(one.images)) for one in few])
            hull.append(polytope(seen, wanted).losses.cpu())
            apart.append(collision(seen, wanted).losses.cpu())
        return torch.stack(hull), torch.stack(apart)


class Rows:
    """Which training rows serve what: in the order of the data, class by class.

    Args:
        classes: int64 [n] for each class, its rows.
        game: how many of them.
    """

    def __init__(self, classes: list[Tensor], game: Transfer) -> None:
        self._classes, self._game = classes, game
        first, last = game.pretraining, game.pretraining + game.fine_tuning
        self.fine_tuning = torch.cat([rows[first:last] for rows in classes]).sort().values
        self.targets = classes[game.target_class][last : last + game.targets]
        starts = [last + game.targets * (label == game.target_class) for label in range(len(classes))]
        self._left = torch.cat([rows[start:] for rows, start in zip(classes, starts, strict=True)])

    def pretraining(self, share: Share) -> Int64[Tensor, "n"]:
        """A part of every class's images for pre-training."""
        first, last = (round(part * self._game.pretraining) for part in share)
        return torch.cat([rows[first:last] for rows in self._classes]).sort().values

    def trusted(self, seed: Seed) -> Int64[Tensor, "n"]:
        """A defender's images, drawn from those that serve nothing else.

        Raises:
            SettingError: they are too few.
        """
        count = self._game.trusted
        if count > len(self._left):
            raise SettingError(
                f"trusted: {count} are more images than pre-training, fine-tuning and targets leave, which are "
                f"{len(self._left)}; ask for fewer, or lower pretraining"
            )
        return self._left[seed.permutation(len(self._left))[:count]].sort().values


def divided(labels: Int64[Tensor, "n"], game: Transfer) -> Rows:
    """The rows of a game.

    Raises:
        SettingError: a class has too few images, or the target's class does not exist.
    """
    count = int(labels.max()) + 1
    if game.target_class >= count:
        raise SettingError(f"target_class: {game.target_class} is no class; there are {count}, from 0")
    classes = [(labels == label).nonzero()[:, 0] for label in range(count)]
    for label, rows in enumerate(classes):
        parts = {"pretraining": game.pretraining, "fine_tuning": game.fine_tuning}
        parts |= {"targets": game.targets} if label == game.target_class else {}
        if sum(parts.values()) > len(rows):
            said = " + ".join(f"{name} {size}" for name, size in parts.items())
            raise SettingError(f"{said} are more images than class {label} has, which are {len(rows)}")
    return Rows(classes, game)
