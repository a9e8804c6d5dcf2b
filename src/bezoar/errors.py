"""The errors a user can meet: each is one message that names the field, the value and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class BezoarError(Exception):
    """Base of every error that bezoar raises for something the user can put right.

    The command line prints the message alone and exits with status 2.
    """


class SettingError(BezoarError):
    """A setting is unknown, misspelt, out of range or cannot be met by the data."""


class DataError(BezoarError):
    """Images, labels or a folder of them are missing, broken or of the wrong kind."""


class ModelFileError(BezoarError):
    """A file or folder that should hold a model does not, or holds another one."""


class StoreError(BezoarError):
    """The store cannot be read or written."""


class DamagedEntryError(StoreError):
    """An entry of the store is not what was written under its address."""


class StoreWarning(UserWarning):
    """Something was wrong in the store and has been put right."""


def known(names: Iterable[str], given: str) -> str:
    """The end of a message about an unknown name: the nearest name, if any, and all of them."""
    alternatives = sorted(names)
    near = get_close_matches(given, alternatives, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(alternatives) or 'none'}"
