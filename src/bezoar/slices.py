"""Long work in slices: for some minutes pieces of it are begun, then no more, and the same command goes on from there.

What has been begun is finished, so a slice may end later than its minutes; nothing is thrown away to be in time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from bezoar.errors import BezoarError, SettingError

Value = TypeVar("Value")


class TimeUpError(BezoarError):
    """The minutes of a slice have passed, so that no further piece of work is begun."""


class Slice:
    """The time in which work is begun.

    The first piece always is, however late it comes: a short slice gets on as well, and many of them come to the end.

    Args:
        minutes: from now on; without them the time is never up.
        clock: tells seconds.

    Raises:
        SettingError: there is no time at all.
    """

    def __init__(self, minutes: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        if minutes is not None and not minutes > 0:  # nan is no time either
            raise SettingError(f"--minutes: {minutes:g} is no time to play in; give more than 0, or leave it out")
        self._clock = clock
        self._end = math.inf if minutes is None else clock() + 60 * minutes
        self._begun = False

    @property
    def over(self) -> bool:
        """Whether nothing more is to be begun."""
        return self._begun and self._clock() >= self._end

    @property
    def left(self) -> float | None:
        """Minutes until the time is up, for a slice elsewhere that ends with this one; None without an end."""
        return None if math.isinf(self._end) else max(self._end - self._clock(), 1e-3) / 60

    def begin(self) -> None:
        """A piece of work is begun now.

        Raises:
            TimeUpError: it must not be.
        """
        if self.over:
            raise TimeUpError("--minutes: the time is up; the same command goes on from here")
        self._begun = True

    def run(self, compute: Callable[[], Value]) -> Value:
        """Do a piece of work.

        Raises:
            TimeUpError: it must not be begun any more.
        """
        self.begin()
        return compute()
