"""What lies in a store: its entries, whether they are whole, and which of them nobody will ask for again."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bezoar.component import canonical, families, members
from bezoar.errors import DamagedEntryError, StoreError
from bezoar.store import FACTS, TENSORS, Store, read_record

DAY = 24 * 3600
KIND = re.compile(r'"kind":"([^"@]+)@(\d+)"')
"""How a recipe names a method and its revision."""


@dataclass(frozen=True)
class Entry:
    """One artefact as it lies in a store.

    Attributes:
        address: 32 hexadecimal digits.
        record: its recipe (`stage`, `settings`, `seed`, `inputs`), `facts`, the names of its `tensors`, and the
            `seconds` that it took.
        size: bytes on disk.
        used: when it was last made or read, in seconds since 1970.
    """

    address: str
    record: Mapping[str, Any]
    size: int
    used: float

    @property
    def stage(self) -> str:
        """What kind of stage it is: collect, train, repair, inspect, ..."""
        return str(self.record["stage"])

    @property
    def methods(self) -> list[str]:
        """The methods that took part, as ``kind@revision``."""
        found = KIND.findall(canonical(self.record["settings"]))
        return list(dict.fromkeys(f"{kind}@{revision}" for kind, revision in found))


def entries(store: Store) -> Iterator[Entry]:
    """All entries whose record can be read, by address; their files are not gone through (see `damaged`)."""
    for folder in store.folders():
        try:
            yield _entry(folder)
        except DamagedEntryError:
            continue


def damaged(folders: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Which of these entries are not what was written, and what is wrong with each."""
    for folder in folders:
        try:
            read_record(folder)
        except DamagedEntryError as damage:
            yield folder, str(damage)


def lookup(store: Store, start: str) -> Entry:
    """The one entry whose address begins so.

    Raises:
        StoreError: there is none, or there are several.
    """
    found = [folder for folder in store.folders() if folder.name.startswith(start)]
    if len(found) != 1:
        several = f": {', '.join(folder.name for folder in found[:5])}" if found else ""
        raise StoreError(f"{len(found) or 'no'} entries of the store {store.root} begin with {start!r}{several}")
    return _entry(found[0])


def _entry(folder: Path) -> Entry:
    record = read_record(folder, whole=False)
    size = sum((folder / name).stat().st_size for name in (FACTS, TENSORS) if (folder / name).is_file())
    return Entry(folder.name, record, size, folder.stat().st_mtime)


def outdated(found: Iterable[Entry]) -> list[Entry]:
    """Entries that a method of another revision took part in, and those with such inputs: nobody asks for them again.

    As far as the store knows: some inputs, such as data read from disk or set apart from trusted images, are no
    entries, and what builds on them alone is kept. So is what a method made that is not registered here.
    """
    present: dict[str, set[str]] = {}
    for family in families():
        for kind, cls in members(family).items():
            present.setdefault(kind, set()).add(str(cls.revision))
    every = list(found)
    stale: set[str] = set()
    growing = True
    while growing:  # until nothing more builds on what is stale
        more = {one.address for one in every if _superseded(one, present) or stale & set(one.record["inputs"].values())}
        growing, stale = more != stale, more
    return [one for one in every if one.address in stale]


def _superseded(entry: Entry, present: Mapping[str, set[str]]) -> bool:
    pairs = (method.split("@") for method in entry.methods)
    return any(kind in present and revision not in present[kind] for kind, revision in pairs)


def unused(found: Iterable[Entry], days: float, stage: str | None = None) -> list[Entry]:
    """Entries, of one stage or of all, that nobody has read for so many days."""
    before = time.time() - days * DAY
    return [one for one in found if one.used < before and stage in (None, one.stage)]


def used_since(store: Store, when: float) -> list[Entry]:
    """Entries that were made or read since a moment in seconds since 1970, by whatever process."""
    found: list[Entry] = []
    for folder in store.folders():
        with suppress(OSError, StoreError):  # another process may be setting it aside
            if folder.stat().st_mtime >= when:
                found.append(_entry(folder))
    return found


def remove(store: Store, chosen: Iterable[Entry]) -> int:
    """Delete entries, and return how many bytes that freed.

    Raises:
        StoreError: one cannot be deleted.
    """
    freed = 0
    for entry in chosen:
        freed += _deleted(store.root / entry.address[:2] / entry.address, entry.size)
    return freed


def set_aside(store: Store) -> list[Path]:
    """The folders of damaged entries that were moved aside."""
    aside = store.root / "damaged"
    return sorted(folder for folder in aside.iterdir() if folder.is_dir()) if aside.is_dir() else []


def remove_damaged(store: Store) -> int:
    """Delete what was set aside, and return how many bytes that freed.

    Raises:
        StoreError: something cannot be deleted.
    """
    return sum(_deleted(folder, size_of(folder)) for folder in set_aside(store))


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _deleted(folder: Path, size: int) -> int:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return 0  # another process was faster
    except OSError as error:
        raise StoreError(f"cannot delete {folder}: {error.strerror}") from None
    return size
