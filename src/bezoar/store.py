"""Content-addressed stages: what has been computed once is never computed again.

A stage is a pure function of its settings, its seed path and the addresses of its inputs; its address is the digest of
those. A killed run resumes. Of several processes that want a stage one makes it and the others wait; where locks do not
work all make it, which does no harm: each writes into a scratch folder and renames it when it is complete. Every entry
has a checksum, so a damaged one is never read. Tensors are safetensors and the rest is JSON; nothing is pickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bezoar.component import canonical, digest
from bezoar.errors import DamagedEntryError, StoreError, StoreWarning
from bezoar.locks import alone
from bezoar.signals import put_off

FORMAT = 1
ADDRESS = re.compile("[0-9a-f]{32}")
FACTS, TENSORS = "facts.json", "tensors.safetensors"
STALE_SECONDS = 24 * 3600
CLAIM_SECONDS = 0.1
"""How often is looked whether another process has made what is wanted."""


@dataclass(frozen=True)
class Stage:
    """The recipe of one artefact.

    Attributes:
        name: what kind of stage this is: collect, train, repair, inspect, ...
        settings: identities of the components that take part (`Component.identity`), and plain values.
        seed: the path of the random stream.
        inputs: role -> address of the stages that this one builds on.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seed: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])

    def recipe(self) -> dict[str, Any]:
        """Everything that decides the result, as plain JSON values."""
        return {"stage": self.name, "settings": self.settings, "seed": self.seed, "inputs": self.inputs}

    @property
    def address(self) -> str:
        """32 hexadecimal digits: equal recipes, equal addresses."""
        return digest(self.recipe())


@dataclass(frozen=True)
class Artefact:
    """What a stage made: named tensors, and facts as plain JSON values."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


def default_home() -> Path:
    """Where bezoar keeps its store: ``BEZOAR_HOME``, else the user's cache folder."""
    home = os.environ.get("BEZOAR_HOME")
    if home:
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bezoar"


def read_record(folder: Path, *, whole: bool = True) -> dict[str, Any]:
    """What an entry says of itself: recipe, facts, names of tensors, seconds.

    Entries of older bezoars have no checksum, and are read without. Unless `whole`, the files are not gone through.

    Raises:
        DamagedEntryError: it cannot be read, its files have changed since, or it is the entry of another recipe.
    """
    try:
        record = json.loads((folder / FACTS).read_text())
        stated = record.pop("checksum", None)
        recipe = {name: record[name] for name in ("stage", "settings", "seed", "inputs")}
        damaged = whole and stated is not None and stated != checksum(record, folder)
        missing = {"facts", "tensors", "seconds"} - set(record)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        raise DamagedEntryError(f"the entry {folder.name} of the store cannot be read") from None
    except OSError as error:  # the entry may be as good as ever
        raise StoreError(f"the entry {folder.name} of the store cannot be read now: {error.strerror}") from None
    if damaged or missing:
        raise DamagedEntryError(f"the {recipe['stage']!r} entry {folder.name} of the store has changed on disk")
    if digest(recipe) != folder.name:
        raise DamagedEntryError(f"the entry {folder.name} of the store holds another stage than its address says")
    return record


def checksum(record: Mapping[str, Any], folder: Path) -> str:
    """Of an entry: blake2b of its record and of its tensors' file, if it has one."""
    state = blake2b(canonical(record).encode(), digest_size=16)
    if record["tensors"]:
        with (folder / TENSORS).open("rb") as file:
            state.update(file_digest(file, blake2b).digest())
    return state.hexdigest()


class Store:
    """A folder of artefacts by address.

    Args:
        root: created when missing.

    Raises:
        StoreError: the folder cannot be used, or was written by a bezoar with another format.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or default_home()) / "store"
        self._scratch, self._claims = self.root / "scratch", self.root / "claims"
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            self._claims.mkdir(exist_ok=True)
            self._check_format()
            self._sweep_scratch()
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be used ({error.strerror}); "
                "set BEZOAR_HOME to a folder that can be written"
            ) from None

    def find(self, stage: Stage) -> Artefact | None:
        """The artefact of a stage if it has been made; a damaged one is set aside with a warning, and is not made."""
        folder = self._folder(stage.address)
        if not folder.is_dir():
            return None
        try:
            record = read_record(folder)
            with put_off():
                tensors = load_file(folder / TENSORS) if record["tensors"] else {}
        except (DamagedEntryError, FileNotFoundError, SafetensorError) as damage:
            self.set_aside(folder, str(damage))
            return None
        with suppress(OSError):  # a store that cannot be written can be read
            os.utime(folder)  # when it was last used
        return Artefact(tensors, record["facts"])

    def set_aside(self, folder: Path, why: str) -> None:
        """Move a damaged entry out of the way, so that it is made again, and warn; StoreError if that cannot be."""
        damaged = self.root / "damaged" / f"{folder.name}-{uuid.uuid4().hex[:8]}"
        try:
            damaged.parent.mkdir(exist_ok=True)
            folder.rename(damaged)
        except FileNotFoundError:  # another process has just set it aside
            return
        except OSError as error:
            raise StoreError(f"{why}, and it cannot be moved aside: {error.strerror}") from None
        warnings.warn(f"{why}; it was moved to {damaged} and will be made again", StoreWarning, stacklevel=2)

    def folders(self) -> list[Path]:
        """The folders of all entries, by address; what else somebody has put between them is left alone.

        Raises:
            StoreError: the store cannot be gone through.
        """
        try:
            parts = [part for part in self.root.glob("[0-9a-f][0-9a-f]") if part.is_dir()]
            inside = [folder for part in parts for folder in part.iterdir() if folder.name.startswith(part.name)]
            return sorted(folder for folder in inside if ADDRESS.fullmatch(folder.name) and folder.is_dir())
        except OSError as error:
            raise StoreError(f"the store {self.root} cannot be gone through: {error}") from None

    def make(self, stage: Stage, compute: Callable[[], Artefact]) -> Artefact:
        """The artefact of a stage, computed unless it has been made before; where another process makes it, wait.

        Raises:
            StoreError: the artefact cannot be written; nothing is left half-written.
        """
        found = self.find(stage)
        if found is not None:
            return found
        with alone(self._claims / stage.address, CLAIM_SECONDS):  # without locks made twice, which does no harm
            found = self.find(stage)
            if found is not None:
                return found
            started = time.monotonic()
            artefact = compute()
            self._write(stage, artefact, time.monotonic() - started)
        return artefact

    def seconds(self, stage: Stage) -> float:
        """How long a stage took when it was made; 0 if it has not been."""
        path = self._folder(stage.address) / FACTS
        return float(json.loads(path.read_text())["seconds"]) if path.is_file() else 0.0

    def _folder(self, address: str) -> Path:
        return self.root / address[:2] / address

    def _write(self, stage: Stage, artefact: Artefact, seconds: float) -> None:
        scratch = self._scratch / f"{stage.address}-{uuid.uuid4().hex[:8]}"
        folder = self._folder(stage.address)
        record = {
            **stage.recipe(),
            "facts": artefact.facts,
            "tensors": sorted(artefact.tensors),
            "seconds": round(seconds, 3),
        }
        try:
            scratch.mkdir()
            if artefact.tensors:
                save_file(_apart(artefact.tensors), scratch / TENSORS)
            (scratch / FACTS).write_text(canonical({**record, "checksum": checksum(record, scratch)}))
            folder.parent.mkdir(exist_ok=True)
            if not folder.exists():
                scratch.rename(folder)
        except (OSError, SafetensorError) as error:
            if not folder.is_dir():  # else another process was faster, and its result is as good
                raise StoreError(
                    f"cannot write the stage {stage.name!r} into the store {self.root}: {error}; "
                    "free some space or set BEZOAR_HOME to another folder"
                ) from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _check_format(self) -> None:
        marker = self.root / "format.json"
        if not marker.is_file():
            scratch = marker.with_name(f"format-{uuid.uuid4().hex[:8]}.tmp")
            scratch.write_text(canonical({"format": FORMAT}))
            scratch.replace(marker)  # so that no other process reads half of it
        try:
            found = json.loads(marker.read_text())["format"]
        except (ValueError, KeyError, TypeError):
            found = "unreadable"
        if found != FORMAT:
            raise StoreError(
                f"the store {self.root} has format {found!r}, but this bezoar reads format {FORMAT}; "
                "set BEZOAR_HOME to a new folder, or remove the old store"
            )

    def _sweep_scratch(self) -> None:
        """Remove what killed runs have left; young entries may belong to a running process."""
        for entry in (*self._scratch.iterdir(), *self._claims.iterdir()):
            with suppress(OSError):  # its process has just finished, or it is another user's
                if time.time() - entry.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8) so that it is there as a whole or not at all.

    Raises:
        StoreError: it cannot be written; an old file is left as it was.
    """
    put_whole(path, lambda scratch: scratch.write_bytes(content.encode() if isinstance(content, str) else content))


def put_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or a folder beside its place, and move it there when it is complete.

    Raises:
        StoreError: it cannot be written; what was there is left as it was.
    """
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        scratch.replace(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; free some space or name another folder"
        ) from None
    finally:
        with suppress(OSError):  # the folder itself may be what is wrong
            shutil.rmtree(scratch) if scratch.is_dir() else scratch.unlink(missing_ok=True)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: on the CPU, contiguous, and no two in the same memory (tied weights)."""
    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        held = tensor.detach().cpu().contiguous()
        memory = held.untyped_storage().data_ptr()
        apart[name] = held.clone() if memory in seen else held
        seen.add(memory)
    return apart
