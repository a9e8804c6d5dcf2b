"""Figure 8: what every attack does to the same few images."""

from __future__ import annotations

from collections.abc import Sequence

from bezoar.games.game import BackdoorGame, Game
from bezoar.games.referee import Referee
from bezoar.report.gallery import attack_figure
from bezoar.report.page import Picture, Section
from bezoar.reproduce.outcome import Outcome


def figure8(games: Sequence[Game], referee: Referee) -> Outcome:
    """One picture for each game's attack, made anew; an attack with a model of its own has it trained for that.

    Raises:
        DataError: the images are not there.
    """
    pictures: list[Picture] = []
    backdoors = [game for game in games if isinstance(game, BackdoorGame)]
    for game in referee.lab.progress.track(backdoors, "attacks", len(backdoors)):
        asked = referee.publishing(game.recipe)
        figure = attack_figure(game.attack, asked.splits(game.data), asked, game.recipe)
        pictures.append(Picture(figure, f"{game.attack.kind}: {type(game.attack).paper}"))
    text = (
        "Poisoned is what training images carry, attacked what test images carry; a difference is amplified as its "
        "factor says."
    )
    return Outcome([Section("Figure 8", text, figures=pictures)], [], [])
