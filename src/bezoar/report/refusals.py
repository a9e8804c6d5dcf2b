"""How soon whoever watches a certifier's refusals notices that stamped queries are among them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bezoar.errors import SettingError
from bezoar.measure.monitoring import Chart, average_run_length, chart, refusal_rate
from bezoar.records import Estimate
from bezoar.report.certificates import Certified
from bezoar.report.groups import joined
from bezoar.report.page import Cell, Percent, Section, Table, number

FALSE_ALARM = 10_000
"""Queries until a false alarm, on average, at least."""

LATE = 10 * FALSE_ALARM
"""Run lengths above it are not told apart."""

SHARES = (0.01, 0.05, 0.1, 0.5, 1.0)
"""Of the queries that are stamped."""

FOLD = 1.5
"""For how many times as many refusals as usual the chart is made: its owner does not know the attack."""


def refusal_section(found: Sequence[Certified]) -> Section | None:
    """Queries until the alarm of a cumulative-sum chart, for every attack; nothing if no chart can be made."""
    lines = [line for one in found if (line := _line(one)) is not None]
    if not lines:
        return None
    columns = ("attack", "certifier", "refused: clean", "refused: stamped", *(f"{each:.0%} stamped" for each in SHARES))
    text = (
        "A cumulative-sum chart of refusals, set by the upper end of their rate on clean images so that a false alarm "
        f"comes after {FALSE_ALARM:,} queries on average, and made for {FOLD:g} times as many refusals. Queries "
        "on average until it gives the alarm, by the share of them that is stamped; in brackets, at the ends of the "
        "interval of the rate on stamped images. Exact run lengths, for independent queries. It restores nothing."
    )
    return Section("How soon refusals are noticed", text, Table(columns, lines), folded=True)


def _line(one: Certified) -> list[Cell] | None:
    clean, stamped = (joined(one.estimates("suspect", where, "fallback")) for where in ("clean", "stamped"))
    usual = clean.high
    try:
        made = chart(usual, min(0.99, FOLD * usual), float(FALSE_ALARM))
    except SettingError:  # hardly anything, or nearly everything, is refused without any attack
        return None
    cells = [_queries(made, clean.value, stamped, each) for each in SHARES]
    return [one.attack, one.certifier, Percent(clean), Percent(stamped), *cells]


def _queries(made: Chart, clean: float, stamped: Estimate, attacked: float) -> str:
    soon, mean, late = (
        average_run_length(refusal_rate(clean, rate, attacked), made)
        for rate in (stamped.high, stamped.value, stamped.low)
    )
    return f"{_rounded(mean)} [{_rounded(soon)}, {_rounded(late)}]"


def _rounded(length: float) -> str:
    """A run length in two digits; far beyond a false alarm's it says nothing."""
    if math.isinf(length) or length > LATE:
        return f"> {LATE:,}"
    digits = 1 - math.floor(math.log10(max(1.0, length)))
    return f"{round(length, digits):,.0f}" if length >= 10 else number(round(length, 1))
