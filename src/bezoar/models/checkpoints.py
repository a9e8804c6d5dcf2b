"""Reading the checkpoints that users bring: tensors only, whatever else a file may hold."""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bezoar.errors import ModelFileError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
NESTS = ("state_dict", "model_state_dict", "model", "net")
SHOWN = 3
LEGACY_PICKLES = 5  # before torch 1.6 a file was so many pickles, and then the numbers
# what torch.save writes for tensors and for the dictionary that holds them, and a harmless set
TENSORS_ONLY = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_\w+|torch\.nn\.parameter Parameter|torch \w*Storage|\w+ set"
)
SYSTEM_MODULES = {"posix": "os", "nt": "os", "__builtin__": "builtins"}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the keys they have there; no code in it is ever run.

    A dictionary of weights may be the whole file or stand under ``state_dict``,
    ``model_state_dict``, ``model`` or ``net``.

    Raises:
        ModelFileError: the file is missing, truncated, no checkpoint, holds code, or a weight is not finite.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such file or folder")
    if path.suffix.lower() not in SUFFIXES:
        raise ModelFileError(f"{path}: a checkpoint ends in {', '.join(SUFFIXES)}, not in {path.suffix or 'nothing'!r}")
    state = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)
    if not state:
        raise ModelFileError(f"{path}: it holds no tensors")
    for key, tensor in state.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and not bool(torch.isfinite(tensor).all()):
            raise ModelFileError(
                f"{path}: the weight {key!r} is not finite everywhere: this model is broken; use another checkpoint"
            )
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path}: this is no safetensors file, or only a part of one ({error}); copy it anew"
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript and pickle protocols: the errors below say it better
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch lets whatever a broken pickle runs into through
        foreign = _foreign_names(path)
        if foreign:
            raise ModelFileError(
                f"{path}: this checkpoint contains {', '.join(foreign[:SHOWN])} besides tensors; it was not "
                "executed. Save its weights alone where it was made: torch.save(model.state_dict(), 'weights.pt')"
            ) from error
        if "TorchScript" in str(error):
            raise ModelFileError(
                f"{path}: this is a TorchScript program; save the weights alone: model.state_dict()"
            ) from error
        raise ModelFileError(
            f"{path}: this is no checkpoint, or only a part of one ({path.stat().st_size} bytes); copy it anew"
        ) from error
    return _find_state(path, loaded)


def _find_state(path: Path, loaded: object) -> dict[str, Tensor]:
    """The dictionary of tensors in what `torch.load` gave."""
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelFileError(
            f"{path}: it holds a {type(loaded).__name__}, not a dictionary of weights; save model.state_dict()"
        )
    entries = cast(Mapping[object, object], loaded)
    state = {key: value for key, value in entries.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if len(state) == len(entries):
        return state
    for nest in NESTS:
        if isinstance(entries.get(nest), Mapping):
            return _find_state(path, entries[nest])
    keys = ", ".join(repr(key) for key in list(entries)[:SHOWN])
    raise ModelFileError(
        f"{path}: it holds no dictionary of weights, neither at its top ({keys} ...) nor under {', '.join(NESTS)}; "
        "save model.state_dict()"
    )


def _foreign_names(path: Path) -> list[str]:
    """What a pickle would import besides tensors, e.g. ``os.system``: read off it, never followed."""
    names: list[str] = []
    with suppress(Exception):  # a broken file: the pickles that could be read to their end count
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.endswith("data.pkl"):
                        names += list(_imports(BytesIO(archive.read(member))))
        else:
            with path.open("rb") as stream:
                for _ in range(LEGACY_PICKLES):
                    names += list(_imports(stream))
    foreign = [name for name in dict.fromkeys(names) if not TENSORS_ONLY.fullmatch(name)]
    modules = [name.partition(" ") for name in foreign]
    return [f"{SYSTEM_MODULES.get(module, module)}.{attribute}" for module, _, attribute in modules]


def _imports(stream: BytesIO | BufferedReader) -> Iterator[str]:
    """``module name`` of each global that one pickle asks for."""
    memo: dict[int, object] = {}
    texts: list[str] = []
    last: object = None
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif opcode.name == "STACK_GLOBAL":
            yield " ".join(texts[-2:])
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = last
        elif opcode.name.endswith("PUT"):
            memo[int(cast(int, argument))] = last
        else:
            last = memo.get(int(cast(int, argument))) if opcode.name.endswith("GET") else argument
            if isinstance(last, str):
                texts.append(last)


def match_keys(state: Mapping[str, Tensor], network: nn.Module, published: Mapping[str, str]) -> dict[str, str]:
    """Key in the file -> key of the network.

    What all keys of the file begin with and none of the network's does (``module.`` of
    DataParallel, ``_orig_mod.`` of torch.compile, ``model.`` of Lightning) is set aside.

    Args:
        state: the tensors of the file.
        network: what they are for.
        published: keys in the library's own files -> keys of the network, where they differ.

    Raises:
        ModelFileError: the file belongs to another network; the message names the first such keys.
    """
    own = network.state_dict()
    prefix = _common_prefix(state, {*own, *published})
    bare = {key: key.removeprefix(prefix) for key in state}
    names = {key: name if name in own else published.get(name, name) for key, name in bare.items()}
    found = set(names.values())
    # batch norm counts its batches only since torch 0.4.1, and nothing but an unset momentum needs the count
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = [key for key, name in names.items() if name not in own]
    shapes = [
        f"{key} is {_size(state[key])} in the file and {_size(own[name])} in the network"
        for key, name in names.items()
        if name in own and state[key].shape != own[name].shape
    ]
    complaints = [
        f"{what} {', '.join(keys[:SHOWN])}{f' and {len(keys) - SHOWN} more' if len(keys) > SHOWN else ''}"
        for what, keys in (("missing:", missing), ("unexpected:", unexpected), ("of another shape:", shapes))
        if keys
    ]
    if complaints:
        raise ModelFileError("; ".join(complaints))
    return names


def _common_prefix(keys: Iterable[str], expected: Iterable[str]) -> str:
    """The components, each with its dot, that all keys begin with and no expected key does."""
    prefix = ""
    while True:
        heads = {"".join(key.removeprefix(prefix).partition(".")[:2]) for key in keys}
        head = heads.pop()
        if heads or not head.endswith(".") or any(key.startswith(head) for key in expected):
            return prefix
        prefix += head


def _size(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "a number"
