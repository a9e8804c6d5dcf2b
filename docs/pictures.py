"""Draw docs/pictures/poison.png, the picture of the README: what the demo's attack does to images. Run by `make docs`."""

from __future__ import annotations

from pathlib import Path

from bezoar.games.game import BackdoorGame
from bezoar.games.referee import Referee
from bezoar.plans import read_game
from bezoar.report.canvas import save_figure
from bezoar.report.tiles import pictures
from bezoar.roles import DataPoisoning
from bezoar.seed import Seed
from bezoar.store import Store

TARGET = Path(__file__).parent / "pictures" / "poison.png"


def main() -> None:
    """The first eight images that the demo's attack replaces with seed 0."""
    game, referee, seed = read_game("demo", preset="detection"), Referee(Store()), Seed(0)
    assert isinstance(game, BackdoorGame)
    data = game.deal(referee, seed).data
    assert isinstance(game.attack, DataPoisoning)
    poison = referee.collect(data, game.attack, seed).value
    clean = data.value.train.take(poison.rows[:8])
    labels = zip(clean.labels.tolist(), poison.labels.tolist(), strict=False)
    titles = [f"{clean.classes[true]} as {clean.classes[false]}" for true, false in labels]
    figure = pictures(clean.images(), poison.images[:8], titles)
    save_figure(figure, TARGET)
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
