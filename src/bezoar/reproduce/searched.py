"""Table V: the settings that an oracle-free search finds for each repair, and what the repair then leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bezoar.component import members
from bezoar.report.groups import Robust, Row, kind_of
from bezoar.report.page import Cell, Section, Table
from bezoar.reproduce.numbers import Paper
from bezoar.reproduce.outcome import Outcome
from bezoar.roles import Repairer


def table5(rows: Sequence[Row], paper: Paper, comparable: bool) -> Outcome:
    """Every searched setting beside the printed one; no verdict, since the paper gives neither intervals nor grids."""
    del comparable
    chosen = {kind_of(row["game"]["repairer"]): row for row in rows}
    found = Table(
        ("repair", "setting", "searched from", "to", "printed", "found"),
        [line for repairer, row in chosen.items() for line in _settings(repairer, row, paper)],
    )
    left = Table(
        ("repair", "attack", "attack success", "left (blind)", "left (oracle)"),
        [_left(row) for row in rows],
    )
    text = (
        "The defender poisons a copy of a clean model with a trigger of its own and tries 20 settings on it, "
        "those that the experiment gives among them. What is printed is for CIFAR-10 and 1 % trusted images."
    )
    sections = [Section("Table V", text, found), Section("What is left with them", table=left)]
    searches = {kind_of(row["game"]["repairer"]): row["tuned"] for row in rows if "tuned" in row}
    if searches:
        sections.append(_seen(searches))
    return Outcome(sections if rows else [], [], [])


def _seen(searches: Mapping[str, Row]) -> Section:
    """What the defender saw on its own copy, by repair; rows of older versions of bezoar do not say it."""
    lines: list[Sequence[Cell]] = [
        [repairer, one["trials"], one["given"]["success"], one["found"]["success"], one["found"]["lost"]]
        for repairer, one in searches.items()
    ]
    text = (
        "How many of the held-out images with the defender's own trigger still lead its copy to its class: with the "
        "settings that the experiment gives, and with those that were found, at the accuracy that these lose."
    )
    columns = ("repair", "trials", "with the given settings", "with them", "accuracy lost")
    return Section("What the searches saw", text, Table(columns, lines))


def _settings(repairer: str, row: Row, paper: Paper) -> Iterator[Sequence[Cell]]:
    """The lines of one repair."""
    cls = members(Repairer.family)[repairer]
    assert issubclass(cls, Repairer)
    printed = paper.table5.get(repairer, {})
    for name, searched in cls.ranges.items():
        said = f"{printed[name]:g}" if name in printed else ""
        found = float(row["game"]["repairer"][name])
        yield [repairer, name, f"{searched.low:g}", f"{searched.high:g}", said, f"{found:.3g}"]


def _left(row: Row) -> Sequence[Cell]:
    """What one repair leaves of one attack."""
    one = Robust.read(row)
    blind, oracle = (one.readings[name].attack_success for name in ("blind", "oracle"))
    return [kind_of(row["game"]["repairer"]), kind_of(row["game"]["attack"]), one.attack_success, blind, oracle]
