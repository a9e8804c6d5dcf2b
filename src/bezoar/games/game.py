"""What all games have in common: settings, a referee, and a result that JSON can hold."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from bezoar.component import Component, Settings, canonical, digest
from bezoar.games.referee import Deal, Recipe, Referee, TrustedSource
from bezoar.roles import Architecture, Backdoor, DataPoisoning, DataSource, Sanitizer, Trainer
from bezoar.seed import Seed


class Game(Component):
    """A game is played by the referee and returns measured facts."""

    family: ClassVar[str] = "games"

    data: DataSource
    architecture: Architecture
    trainer: Trainer
    seed: Annotated[int, Field(ge=0)] = 0

    @abstractmethod
    def play(self, referee: Referee) -> dict[str, Any]:
        """The result as plain JSON values; every number in it is an `Estimate` or a plain count."""

    @abstractmethod
    def trainings(self) -> set[str]:
        """A key for every model that playing trains, an attacker's own included: equal keys share one model."""

    def recipes(self) -> dict[str, Recipe]:
        """By which recipe each of these models is trained."""
        return dict.fromkeys(self.trainings(), self.recipe)

    @property
    def recipe(self) -> Recipe:
        """The victim's public recipe."""
        return Recipe(self.architecture, self.trainer)

    def address(self, referee: Referee) -> str:
        """What keys this game's row among results."""
        return digest({"game": self.identity(), "files": referee.fingerprint(self.data)})


class BackdoorGame(Game):
    """A game about a trigger, with a defender who trusts a few images."""

    attack: Backdoor
    trusted: Annotated[int, Field(ge=2)] = 500
    trusted_source: TrustedSource = "train"

    def models_of(self, seed: int, *, poisoned: bool) -> set[str]:
        """The keys of the clean model of a seed, or of the poisoned one and what its attacker trains for it."""
        facts: Settings = {"data": self.data.identity(), "seed": str(seed), **self.recipe.identity()}
        if self.trusted_source == "held_out":  # the victim trains on the rest
            facts["apart_from"] = self.trusted
        if not poisoned:
            return {canonical(facts)}
        found = {canonical({**facts, "attack": self.attack.identity()})}
        if self.attack.wanted_model is not None:
            found.add(canonical({**facts, "seed": f"{seed}/surrogate"}))
        if self.attack.trains_recipe:
            found.add(canonical({**facts, "attack": self.attack.identity(), "seed": f"{seed}/collect"}))
        return found

    def deal(self, referee: Referee, seed: Seed) -> Deal:
        """The images of one round of the game."""
        return referee.deal(referee.splits(self.data), self.trusted, self.trusted_source, seed)


class SanitizedGame(BackdoorGame):
    """A game of one suspect and its clean twin, whose victim may sanitize its data.

    A sanitizer ranks the rows by the features of the undefended model; the share `removed` of them that is the most
    suspicious goes, and the victim trains again on the rest.
    """

    sanitizer: Sanitizer | None = None
    removed: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @model_validator(mode="after")
    def _something_to_sanitize(self) -> SanitizedGame:
        if self.sanitizer is not None and not isinstance(self.attack, DataPoisoning):
            raise ValueError(
                f"sanitizer: {self.attack.kind!r} supplies the model, so the victim has no training data to sanitize"
            )
        return self

    def trainings(self) -> set[str]:
        """The suspect and its clean twin, and the model of the rows that a sanitizer keeps."""
        suspect = self.models_of(self.seed, poisoned=True)
        found = suspect | self.models_of(self.seed, poisoned=False)
        if self.sanitizer is not None:
            kept = {"sanitizer": self.sanitizer.identity(), "removed": self.removed}
            found.add(canonical({"suspect": sorted(suspect), **kept}))
        return found
