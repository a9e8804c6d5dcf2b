"""What committed rows make of a paper's tables and figures, as parts of a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bezoar.report.groups import Row
from bezoar.report.page import Picture
from bezoar.report.parts import as_text, markdown
from bezoar.report.results import provenance_of
from bezoar.reproduce.experiments import EXPERIMENTS, FOLDER, games_of, outcome
from bezoar.reproduce.outcome import Outcome
from bezoar.rows import Results

COMMAND = "bezoar reproduce {name} --preset {preset}"


class Reproduction:
    """A paper's experiments at one preset, as far as their rows are committed.

    Args:
        root: of the checkout.
        paper: the folder of its experiments.
        preset: of the rows.
    """

    def __init__(self, root: Path, paper: str, preset: str) -> None:
        self._experiments = root / FOLDER / paper
        self._results = root / "results" / paper / preset
        self._preset = preset
        self.names = [name for name, one in EXPERIMENTS.items() if one.paper == paper and one.draw is not None]

    def rows(self, name: str) -> list[Row]:
        """The rows that a table or figure is made of, as far as they have been played."""
        found = [
            row for sweep in EXPERIMENTS[name].sweeps for row in Results(self._results / f"{sweep}.jsonl").rows.values()
        ]
        return [row for row in found if "result" in row]

    def missing(self, name: str) -> int:
        """How many of its games have no row."""
        sweeps = EXPERIMENTS[name].sweeps
        return sum(len(games_of(one, self._preset, self._experiments)) for one in sweeps) - len(self.rows(name))

    def drawn(self) -> dict[str, Outcome]:
        """Every table and figure for which something has been measured."""
        measured = {name: rows for name in self.names if (rows := self.rows(name))}
        return {name: outcome(name, rows, self._preset, self._experiments) for name, rows in measured.items()}

    def claims(self, found: Mapping[str, Outcome]) -> list[str]:
        """The lines of a table of all claims."""
        claims = [(name, claim) for name, one in found.items() for claim in one.claims]
        lines = ["## Every claim\n", "| in | the paper says | here | measured |", "|---|---|---|---|"]
        return [*lines, *(f"| {name} | {one.text} | **{one.standing}** | {one.because} |" for name, one in claims)]

    def parts(self, found: Mapping[str, Outcome], prefix: str) -> list[str]:
        """A part for every table and figure; pictures are named by the prefix, the experiment and a number."""
        lines: list[str] = []
        for name, one in found.items():
            command = COMMAND.format(name=name, preset=self._preset)
            took = sum(row["seconds"] for row in self.rows(name)) / 60
            said = f"`{command}`. {one.summary} {took:.0f} minutes of one thread, less what lay in the store already."
            lines += ["", f"## {EXPERIMENTS[name].title}\n", said]
            if left := self.missing(name):
                lines += ["", f"{left} of its games have not been played yet; the same command goes on with them."]
            for section in one.sections:
                lines += ["", section.text] if section.text else []
                if section.table is not None and section.table.rows:
                    lines += ["", markdown(as_text(section.table)).rstrip()]
            for number, picture in enumerate(figures(one), start=1):
                lines += ["", f"![{picture.caption}](pictures/{prefix}-{name}-{number}.png)", "", picture.caption]
        absent = [name for name in self.names if name not in found]
        return lines + (["", f"Not measured yet: {', '.join(absent)}."] if absent else [])

    def provenance(self, found: Mapping[str, Outcome]) -> list[str]:
        """What all rows were measured with."""
        every = {row["address"]: row for name in found for row in self.rows(name)}
        made = ", ".join(f"{name} {value}" for name, value in provenance_of(list(every.values())).items())
        return ["", f"{len(every)} games, measured with {made}."]


def figures(one: Outcome) -> list[Picture]:
    """All pictures of a table or figure, in order."""
    return [picture for section in one.sections for picture in section.figures]
