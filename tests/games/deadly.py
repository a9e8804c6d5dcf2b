"""Games that end their process, in a module of their own, so that a worker of Ray can import them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness


class Deadly(Robustness):
    """Whoever plays it dies."""

    def play(self, referee: Referee) -> dict[str, Any]:
        del referee
        os._exit(1)


class Broken(Robustness):
    """A game with a defect."""

    def play(self, referee: Referee) -> dict[str, Any]:
        return {"missing": referee.lab.__dict__["missing"]}


class DeadlyOnce(Robustness):
    """Its first player dies when all stages are made; the next one finds the mark, and reads them."""

    mark: str

    def play(self, referee: Referee) -> dict[str, Any]:
        result, mark = super().play(referee), Path(self.mark)
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return result
