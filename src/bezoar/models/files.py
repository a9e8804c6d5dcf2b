"""Models on disk without pickle: a folder of safetensors and JSON, and the user's own checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from bezoar import __version__
from bezoar.component import build
from bezoar.errors import ModelFileError, SettingError
from bezoar.models.checkpoints import match_keys, read_state
from bezoar.models.classifier import Classifier, WrappedClassifier
from bezoar.models.foreign import ForeignArchitecture, Shape
from bezoar.models.python_function import PythonFunction
from bezoar.roles import Architecture
from bezoar.seed import Seed

FORMAT = 1
WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
SMALL_IMAGE = (3, 32, 32)


@dataclass(frozen=True)
class StoredWeight:
    """How one weight stands in the user's file: under which key of the network, and as what type."""

    name: str
    dtype: torch.dtype


@dataclass(frozen=True)
class LoadedModel:
    """A model from disk.

    Attributes:
        model: in evaluation mode, on the CPU, in float32 whatever the file holds.
        architecture: what it was built from.
        shape: (c, h, w) of the images that it takes.
        provenance: what the folder says about where the model comes from; empty for a user's checkpoint.
        keys: the user's own keys -> the network's weights.
    """

    model: Classifier
    architecture: Architecture
    shape: Shape
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])
    keys: Mapping[str, StoredWeight] = field(default_factory=dict[str, StoredWeight])


def save_model(
    model: Classifier, folder: Path, *, architecture: Architecture, shape: Shape, provenance: Mapping[str, Any]
) -> None:
    """Write a model folder: ``weights.safetensors`` and ``model.json``, both or neither.

    Args:
        model: on any device, in any mode.
        folder: made, with its parents; a model folder that is there already is replaced.
        architecture: what `model` was built from; its description (normalisation included) is stored.
        shape: (c, h, w) of the images that the model takes.
        provenance: JSON values that say where the model comes from.

    Raises:
        ModelFileError: something else is at that place, or the disk is full; nothing half-written stays.
    """
    folder = folder.resolve()
    if folder.exists() and not _replaceable(folder):
        raise ModelFileError(
            f"{folder}: this is there and is no bezoar model, so it is not replaced; choose another place"
        )
    description = {
        "format": FORMAT,
        "bezoar": __version__,
        "architecture": architecture.describe(),
        "shape": list(shape),
        "classes": list(model.classes),
        "provenance": dict(provenance),
    }
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    with _scratch(folder) as scratch:
        scratch.mkdir(parents=True)
        save_file(_plain(model.weights()), scratch / WEIGHTS)
        (scratch / DESCRIPTION).write_text(text, encoding="utf-8")
        _put(scratch, folder)


def load_model(
    path: Path,
    *,
    architecture: Architecture | None = None,
    classes: Sequence[str] | None = None,
    shape: Shape | None = None,
) -> LoadedModel:
    """Read a bezoar model folder, or a user's checkpoint (.safetensors, .pt, .pth, .bin, .ckpt).

    A folder says everything itself, and what is given besides must agree with it; only a folder
    whose architecture is a Python function needs `architecture`, since the code of a function is
    run, and a folder that somebody sent must not choose it.

    Args:
        path: of the folder or the file.
        architecture: of a checkpoint; see `bezoar.models.foreign.parse_architecture`.
        classes: names in the order of the outputs, for a checkpoint.
        shape: (c, h, w); for a checkpoint, by default what the network was published for, or 3x32x32
            for bezoar's own.

    Raises:
        ModelFileError: one message that says what the path holds instead, and what to do.
        SettingError: the architecture cannot be made here (a library is missing, an unknown name).
    """
    if path.is_dir():
        return _load_folder(path, architecture, classes, shape)
    state = read_state(path)
    if architecture is None:
        raise ModelFileError(
            f"{path}: a checkpoint does not say what network it belongs to; give its architecture "
            "(--architecture timm:NAME, torchvision:NAME, hf:FOLDER_OR_NAME or package.module:function)"
        )
    if not classes:
        raise ModelFileError(
            f"{path}: a checkpoint does not name its classes; give them in the order of the outputs (--classes)"
        )
    return _assemble(path, state, architecture, tuple(classes), shape or _native_shape(path, architecture))


def save_weights(loaded: LoadedModel, model: Classifier, path: Path) -> None:
    """Write the weights of a (repaired) model with exactly the keys and types of the file it was loaded from.

    Args:
        loaded: what `load_model` gave for the user's file.
        model: the same network with other weights.
        path: a ``.safetensors`` file, replaced if it is there; its folder is made.

    Raises:
        ModelFileError: the path does not end in .safetensors, or the disk is full.
    """
    if path.suffix.lower() != ".safetensors" or path.is_dir():
        raise ModelFileError(f"{path}: weights are written as a file that ends in .safetensors; choose such a path")
    weights = model.weights()
    state = {key: weights[stored.name].to(stored.dtype) for key, stored in loaded.keys.items()}
    path = path.resolve()
    with _scratch(path) as scratch:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(_plain(state), scratch, metadata={"format": "pt"})
        scratch.replace(path)


def _load_folder(
    folder: Path, architecture: Architecture | None, classes: Sequence[str] | None, shape: Shape | None
) -> LoadedModel:
    """Read what `save_model` wrote."""
    description = _describe(folder)
    given = {
        "architecture": None if architecture is None else architecture.describe(),
        "classes": None if classes is None else list(classes),
        "shape": None if shape is None else list(shape),
    }
    for name, value in given.items():
        # through JSON, as the folder's own values went
        if value is not None and json.loads(json.dumps(value)) != description[name]:
            raise ModelFileError(
                f"{folder}: its {name} is {_short(description[name])}, not {_short(value)}; leave {name} out"
            )
    try:
        stored = build(Architecture, cast(Mapping[str, Any], description["architecture"]))
    except SettingError as error:
        raise ModelFileError(f"{folder / DESCRIPTION}: its architecture is unknown here: {error}") from error
    if isinstance(stored, PythonFunction) and architecture is None:
        raise ModelFileError(
            f"{folder}: its network is made by the function {stored.target}, whose code would be run; "
            f"if you trust that, say so with --architecture {stored.target}"
        )
    channels, height, width = description["shape"]
    state = read_state(folder / WEIGHTS)
    loaded = _assemble(folder, state, stored, tuple(description["classes"]), (channels, height, width))
    return LoadedModel(loaded.model, stored, loaded.shape, description["provenance"], loaded.keys)


def _describe(folder: Path) -> dict[str, Any]:
    """The contents of ``model.json``, complete and of a known format."""
    path = folder / DESCRIPTION
    if not path.is_file():
        hint = "; to load one file of it, name the file" if any(folder.glob("*.safetensors")) else ""
        raise ModelFileError(f"{folder}: this folder is no bezoar model: it has no {DESCRIPTION}{hint}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelFileError(
            f"{path}: this is not JSON, or only a part of it ({error}); copy the folder anew"
        ) from error
    if not isinstance(description, dict) or "format" not in description:
        raise ModelFileError(f"{path}: this does not describe a bezoar model: it names no format")
    fields = cast(dict[str, Any], description)
    if fields["format"] != FORMAT:
        raise ModelFileError(
            f"{path}: it has format {fields['format']!r}, written by bezoar {fields.get('bezoar', '?')}, but "
            f"bezoar {__version__} reads format {FORMAT}; use the version that wrote it, or update"
        )
    kinds = {"architecture": dict, "shape": list, "classes": list, "provenance": dict}
    for name, kind in kinds.items():
        if not isinstance(fields.get(name), kind):
            raise ModelFileError(f"{path}: {name!r} is missing or is not what it should be; copy the folder anew")
    shape = fields["shape"]
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ModelFileError(f"{path}: 'shape' is {shape!r}; it must be three positive whole numbers")
    return fields


def _native_shape(path: Path, architecture: Architecture) -> Shape:
    if not isinstance(architecture, ForeignArchitecture):
        return SMALL_IMAGE
    shape = architecture.native_shape()
    if shape is None:
        raise ModelFileError(
            f"{path}: {architecture} does not say what images it takes; give their shape (channels, height, width)"
        )
    return shape


def _assemble(
    path: Path, state: dict[str, Tensor], architecture: Architecture, classes: tuple[str, ...], shape: Shape
) -> LoadedModel:
    """Build the network and fill it with the tensors of a file."""
    model = architecture.build(shape, classes, Seed(0) / "load")
    network: nn.Module = model.module if isinstance(model, WrappedClassifier) else model
    published = architecture.published(network) if isinstance(architecture, ForeignArchitecture) else {}
    try:
        names = match_keys(state, network, published)
    except ModelFileError as error:
        raise ModelFileError(
            f"{path}: these are not the weights of {architecture} with {len(classes)} classes: {error}; "
            "check the architecture and the number of classes"
        ) from error
    network.load_state_dict({names[key]: tensor for key, tensor in state.items()}, strict=False)
    keys = {key: StoredWeight(names[key], tensor.dtype) for key, tensor in state.items()}
    return LoadedModel(model.eval(), architecture, shape, keys=keys)


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies as safetensors wants them: on the CPU, contiguous, and no two sharing memory."""
    return {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in state.items()}


def _replaceable(folder: Path) -> bool:
    """Whether a folder is empty or a bezoar model, so that a new model may take its place."""
    if not folder.is_dir():
        return False
    present = {entry.name for entry in folder.iterdir()}
    return not present or (DESCRIPTION in present and present <= {DESCRIPTION, WEIGHTS})


def _put(scratch: Path, folder: Path) -> None:
    """Rename the finished scratch folder to its place, moving what stands there out of the way first."""
    if not folder.exists():
        scratch.rename(folder)
        return
    old = scratch.with_suffix(".old")
    folder.rename(old)
    try:
        scratch.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


@contextmanager
def _scratch(place: Path) -> Generator[Path]:
    """A path beside `place` to write to first; nothing stays there, and a full disk gives one message."""
    scratch = place.with_name(f".{place.name}.{uuid4().hex}.scratch")
    try:
        yield scratch
    except (OSError, SafetensorError) as error:
        raise ModelFileError(
            f"{place}: the model could not be written ({error}); make room there, or choose another place"
        ) from error
    finally:
        if scratch.is_dir():
            shutil.rmtree(scratch, ignore_errors=True)
        else:
            scratch.unlink(missing_ok=True)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
