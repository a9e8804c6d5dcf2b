"""Which games make up each table and figure, where their rows lie, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import bezoar
from bezoar.errors import SettingError, known
from bezoar.games.game import Game
from bezoar.games.referee import Referee
from bezoar.plans import SettingsFile, plan, read_settings
from bezoar.report.groups import Row
from bezoar.report.page import Section, write_page
from bezoar.report.parts import write_parts, write_rows
from bezoar.report.results import provenance_of
from bezoar.report.words import glossary, intervals
from bezoar.reproduce.figures import figure5, figure6, figure7, figure9
from bezoar.reproduce.gallery import figure8
from bezoar.reproduce.numbers import Paper, read_paper
from bezoar.reproduce.outcome import Outcome
from bezoar.reproduce.searched import table5
from bezoar.reproduce.tables import table2, table3
from bezoar.reproduce.transfer import figure3 as cp_figure3
from bezoar.reproduce.transfer import figure5 as cp_figure5
from bezoar.reproduce.transfer import figure6 as cp_figure6
from bezoar.reproduce.transfer import figure7 as cp_figure7
from bezoar.reproduce.transfer import figure8 as cp_figure8

PRESETS = ("cpu", "gpu", "paper")
COMPARABLE = ("gpu", "paper")
"""Presets at which values, not only their order, can be held against the paper's."""

FOLDER = Path("experiments")
LUKAS, ZHU = "pick-your-poison", "convex-polytope"
"""Folders of the papers: arXiv:2305.09671 and arXiv:1905.05897."""
NUMBERS = "numbers.yaml"

Draw = Callable[[Sequence[Row], Path, bool], Outcome]
"""Rows, the file of printed numbers, and whether values can be compared -> what became of a table or figure."""


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper.

    Attributes:
        paper: the folder of its settings files and numbers.
        title: what it shows.
        sweeps: the settings files whose games it needs; experiments share games through these.
        draw: None where nothing is measured: the attacks of the games are shown on images, and no game is played.
    """

    paper: str
    title: str
    sweeps: tuple[str, ...]
    draw: Draw | None


def _beside(draw: Callable[[Sequence[Row], Paper, bool], Outcome]) -> Draw:
    """A drawing of "Pick your Poison", with its numbers read."""
    return lambda rows, path, comparable: draw(rows, read_paper(path), comparable)


EXPERIMENTS = {
    "table2": Experiment(
        LUKAS, "Table II: undefended models, and how detectable they are", ("detection",), _beside(table2)
    ),
    "table3": Experiment(LUKAS, "Table III: what five repairs leave", ("repairs",), _beside(table3)),
    "table5": Experiment(LUKAS, "Table V: settings found without an oracle", ("search",), _beside(table5)),
    "fig5": Experiment(LUKAS, "Figure 5: attack success and detectability over m", ("detection",), _beside(figure5)),
    "fig6": Experiment(
        LUKAS, "Figure 6: accuracy and attack success during Pivotal Tuning", ("curves",), _beside(figure6)
    ),
    "fig7": Experiment(
        LUKAS,
        "Figure 7: robustness against detectability",
        ("curves", "detection", "adaptive_curves", "adaptive_detection"),
        _beside(figure7),
    ),
    "fig8": Experiment(LUKAS, "Figure 8: what the attacks do to images", ("gallery",), None),
    "fig9": Experiment(LUKAS, "Figure 9: scores of single classes", ("detection",), _beside(figure9)),
    "cp-fig3": Experiment(
        ZHU, "Figure 3: losses in an unseen victim while poisons are crafted", ("losses",), cp_figure3
    ),
    "cp-fig5": Experiment(ZHU, "Figure 5: linear victims of triggerless poisons", ("linear", "white_box"), cp_figure5),
    "cp-fig6": Experiment(ZHU, "Figure 6: attackers who share some of the data, or none", ("overlap",), cp_figure6),
    "cp-fig7": Experiment(ZHU, "Figure 7: victims that train everything", ("end_to_end",), cp_figure7),
    "cp-fig8": Experiment(ZHU, "Figure 8: clean accuracy of poisoned victims", ("linear",), cp_figure8),
}
"""Name -> table or figure; those of "Transferable Clean-Label Poisoning Attacks" begin with cp."""


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        SettingError: there is none.
    """
    if name not in EXPERIMENTS:
        raise SettingError(f"unknown table or figure {name!r}; {known(EXPERIMENTS, name)}")
    return EXPERIMENTS[name]


def folder_of_experiments(name: str, given: Path | None) -> Path:
    """Where a table's settings files lie: the folder given, or its paper's below the working directory or the checkout.

    Raises:
        SettingError: in none of them.
    """
    below = FOLDER / find(name).paper
    checkout = Path(bezoar.__file__).parents[2]
    for folder in (below, checkout / below) if given is None else (given,):
        if (folder / NUMBERS).is_file():
            return folder
    raise SettingError(
        f"--experiments: {given or below} holds no {NUMBERS}; run this in a checkout of bezoar, or name the folder"
    )


def settings_of(sweep: str, preset: str, folder: Path) -> SettingsFile:
    """One settings file at a preset.

    Raises:
        SettingError: the file is wrong, or has no such preset.
    """
    return read_settings(folder / f"{sweep}.yaml", preset)


def games_of(sweep: str, preset: str, folder: Path) -> list[Game]:
    """The games of one settings file at a preset, before any search that it asks for.

    Raises:
        SettingError: the file is wrong, or has no such preset.
    """
    return plan(settings_of(sweep, preset, folder))


def outcome(name: str, rows: Sequence[Row], preset: str, folder: Path, referee: Referee | None = None) -> Outcome:
    """What the rows make of a table or figure.

    Args:
        name: of the experiment.
        rows: the results of its games, as far as they have been played.
        preset: which says whether values can be compared with the paper's.
        folder: of the settings files and the paper's numbers.
        referee: who makes the attacks' images; an experiment whose games are played needs none.

    Raises:
        SettingError: the paper's numbers cannot be read.
        StoreError: a row is of another version of bezoar.
    """
    experiment = find(name)
    if experiment.draw is not None:
        return experiment.draw(rows, folder / NUMBERS, preset in COMPARABLE)
    if referee is None:
        raise SettingError(f"{name}: its images are made anew, which takes a referee")
    return figure8([game for sweep in experiment.sweeps for game in games_of(sweep, preset, folder)], referee)


def reproduction_page(path: Path, name: str, preset: str, found: Outcome, rows: Sequence[Row]) -> None:
    """A page of its own; beside it all rows, `tables` and `figures`, as of `bezoar report`.

    Raises:
        StoreError: a file cannot be written.
    """
    sections: list[Section] = [*found.sections, *found.judged()]
    write_page(
        path,
        title=f"bezoar reproduce {name}",
        verdict=f"{find(name).title}, preset {preset}",
        tone="open",
        summary=found.summary,
        sections=[*sections, glossary(), intervals()],
        provenance=provenance_of(rows),
    )
    write_rows(path.parent, rows)
    write_parts(path.parent, sections)
