"""Games that end their process, in a module of their own, so that a worker of Ray can import them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bezoar.games.referee import Referee
from bezoar.games.robustness import Robustness
from bezoar.inventory import entries
from bezoar.store import FACTS, Store

Item = TypeVar("Item")


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


class DeadlyInTraining(Robustness):
    """Its first player dies amid the second training and notes what the store holds by then; the next one plays on."""

    mark: str

    def play(self, referee: Referee) -> dict[str, Any]:
        mark = Path(self.mark)
        if not mark.exists():
            dying = DyingProgress(mark, referee.store, str(self.seed))
            referee = replace(referee, lab=replace(referee.lab, progress=dying))
        return super().play(referee)


class DyingProgress:
    """Ends its process after five steps of the second training that it is shown."""

    def __init__(self, mark: Path, store: Store, seed: str) -> None:
        self.mark, self.store, self.seed, self.trainings = mark, store, seed, 0

    def track(self, items: Iterable[Item], name: str, total: int) -> Iterator[Item]:
        self.trainings += name == "training"
        for number, item in enumerate(items):
            if (self.trainings, name, number) == (2, "training", 5):
                assert total > 6, "it dies before the last step"
                self.mark.write_text(json.dumps(made(self.store, self.seed)))
                os._exit(1)
            yield item


def made(store: Store, seed: str) -> dict[str, tuple[str, int]]:
    """Of each entry of a game's seed: what stage it is, and when it was written, in nanoseconds."""
    found = [one for one in entries(store) if one.record["seed"].split("/")[0] == seed]
    written = {one.address: (store.root / one.address[:2] / one.address / FACTS).stat().st_mtime_ns for one in found}
    return {one.address: (one.stage, written[one.address]) for one in found}
