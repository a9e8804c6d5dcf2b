"""Where images come from."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bezoar.component import Component
from bezoar.records import Dataset

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Splits:
    """A data source's two halves; the referee measures on `test`, players never see it."""

    train: Dataset
    test: Dataset


class DataSource(Component):
    """Where images come from."""

    family: ClassVar[str] = "datasets"
    generated: ClassVar[bool] = False
    """Whether the images are computed (and worth keeping in the store) rather than read from files."""

    @abstractmethod
    def load(self, folders: tuple[Path, ...]) -> Splits:
        """Find and open the images.

        Args:
            folders: where to look, first match wins (``--data``, then ``BEZOAR_DATA``).

        Raises:
            DataError: the images are not there, or are not what they should be.
        """

    def fingerprint(self, folders: tuple[Path, ...]) -> str:
        """A text that changes whenever the files behind the same settings do."""
        del folders
        return ""
