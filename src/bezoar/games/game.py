"""What all games have in common: settings, a referee, and a result that JSON can hold."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar

from pydantic import Field

from bezoar.component import Component, digest
from bezoar.games.referee import Deal, Recipe, Referee, TrustedSource
from bezoar.roles import Architecture, Attack, DataSource, Trainer
from bezoar.seed import Seed


class Game(Component):
    """A game is played by the referee and returns measured facts."""

    family: ClassVar[str] = "games"

    data: DataSource
    attack: Attack
    architecture: Architecture
    trainer: Trainer
    trusted: Annotated[int, Field(ge=2)] = 500
    trusted_source: TrustedSource = "train"
    seed: Annotated[int, Field(ge=0)] = 0

    @abstractmethod
    def play(self, referee: Referee) -> dict[str, Any]:
        """The result as plain JSON values; every number in it is an `Estimate` or a plain count."""

    def deal(self, referee: Referee, seed: Seed) -> Deal:
        """The images of one round of the game."""
        return referee.deal(referee.splits(self.data), self.trusted, self.trusted_source, seed)

    @property
    def recipe(self) -> Recipe:
        """The victim's public recipe."""
        return Recipe(self.architecture, self.trainer)

    def address(self, referee: Referee) -> str:
        """What keys this game's row among results."""
        return digest({"game": self.identity(), "files": self.data.fingerprint(referee.folders)})
