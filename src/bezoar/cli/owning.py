"""`bezoar audit` and `bezoar repair`: a user's own model and a folder of trusted images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bezoar import owner
from bezoar.cli.console import Bars, find_component, find_device, print_json, print_table, say, stdout, write_json
from bezoar.component import Component, build, override
from bezoar.data.folder import read_folder
from bezoar.errors import DataError, SettingError
from bezoar.lab import Lab
from bezoar.models.classifier import Classifier
from bezoar.models.files import LoadedModel, load_model, save_model, save_weights
from bezoar.models.foreign import parse_architecture
from bezoar.plans import read_settings
from bezoar.records import Trusted
from bezoar.report.views import audit_page, repair_page
from bezoar.roles import Detector, Repairer
from bezoar.rows import provenance
from bezoar.seed import Seed

FAR_BELOW = 0.5
"""A model this rarely right on trusted images probably has its classes in another order."""


@dataclass(frozen=True)
class Network:
    """How the options describe a user's own network, all optional for a bezoar model folder."""

    architecture: str | None
    classes: str | None
    mean: str | None
    std: str | None
    size: int | None


def audit(
    path: Path,
    folder: Path,
    network: Network,
    detector: str,
    changes: Sequence[str],
    *,
    power: bool,
    out: Path | None,
    seed: int,
    device: str,
    as_json: bool,
) -> bool:
    """Inspect a model and say what was found; True if it is suspicious."""
    player = _player("detectors", detector, changes)
    assert isinstance(player, Detector)
    loaded, trusted, lab = _load(path, folder, network, device)
    found = owner.audit(loaded.model, trusted, player, lab, Seed(seed), power=power)
    _warn(found.accuracy.value, trusted)
    document: dict[str, Any] = {
        "model": str(path),
        "detector": player.describe(),
        **found.as_json(trusted.classes),
        "provenance": provenance(lab.device),
    }
    if out is not None:
        write_json(out / "result.json", document)
        audit_page(out / "report.html", found, trusted=trusted, model_name=str(path), provenance=document["provenance"])
    if as_json:
        print_json(document)
    else:
        evidence = list(found.inspection.evidence)
        rows = [
            [each["class"], f"{each['score']:.2f}", *(f"{each[name]:.3g}" for name in evidence)]
            for each in document["classes"]
        ]
        print_table(
            f"{player.kind} on {path}", ["class", "score", *(name.replace("_", " ") for name in evidence)], rows
        )
        for tier in found.inspection.tiers:
            stdout.print(f"{tier.kind}: {owner.sees(tier, trusted.classes)}", highlight=False)
        stdout.print(f"{found.verdict.upper()}: {found.reason}", highlight=False)
        if found.power is not None:
            stdout.print(f"Power: {found.power.sentence(trusted.classes)}", highlight=False)
        if out is not None:
            stdout.print(f"Report: {out / 'report.html'}", highlight=False)
    return found.verdict == "suspicious"


def repair(
    path: Path,
    folder: Path,
    network: Network,
    repairer: str,
    changes: Sequence[str],
    *,
    budget: float,
    folds: int,
    out: Path,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Repair a model up to the last step that a cross-validation on the trusted images accepts, and write it."""
    player = _player("repairers", repairer, changes)
    assert isinstance(player, Repairer)
    loaded, trusted, lab = _load(path, folder, network, device)
    done = owner.repair(loaded.model, trusted, player, lab, Seed(seed), budget=budget, folds=folds)
    written = _write_model(
        path, loaded, done.model, out, {"repaired_by": player.describe(), "model": str(path), "step": done.step}
    )
    document: dict[str, Any] = {
        "model": str(path),
        "repairer": player.describe(),
        "repaired": str(written),
        "step": done.step,
        "looks": [look.as_json() for look in done.looks],
        "provenance": provenance(lab.device),
    }
    write_json(out / "result.json", document)
    repair_page(
        out / "report.html",
        done,
        model_name=str(path),
        repairer=str(player),
        budget=budget,
        provenance=document["provenance"],
    )
    if as_json:
        print_json(document)
        return
    rows = [[str(look.step), str(look.accuracy), "yes" if look.accepted else "no"] for look in done.looks]
    print_table(f"{player.kind} on {path}", ["step", "accuracy on held-out folds", "accepted"], rows)
    if done.step == 0:
        stdout.print("No step was acceptable, so the model is written as it was; allow a larger --budget.")
    stdout.print(f"Model of step {done.step}: {written}\nReport: {out / 'report.html'}", highlight=False)


def _player(family: str, name: str, changes: Sequence[str]) -> Component:
    """The component of that name, with the demo's settings below the user's changes.

    An owner starts from the settings whose false alarms and repairs are measured in results/demo/.
    """
    role = family.removesuffix("s")
    measured = (
        read_settings("demo", preset).settings.get(role, {})
        for preset in ("cascade", "detection", "unlearning", "pivotal_tuning")
    )
    start = next((settings for settings in measured if settings.get("kind") == name), {"kind": name})
    return build(find_component(family, name), override(start, changes))


def _load(path: Path, folder: Path, network: Network, device: str) -> tuple[LoadedModel, Trusted, Lab]:
    """The model on its device, and the trusted images at the size that it takes."""
    lab = Lab(find_device(device), Bars())
    loaded = load_network(path, network, lab)
    images = read_folder(folder, loaded.shape[1], loaded.model.classes)
    return loaded, Trusted.of(images), lab


def load_network(path: Path, network: Network, lab: Lab) -> LoadedModel:
    """A user's own model on the lab's device."""
    architecture = None
    if network.architecture is not None:
        mean, std = _numbers("--mean", network.mean), _numbers("--std", network.std)
        architecture = parse_architecture(network.architecture, mean=mean, std=std)
    shape = None if network.size is None else (3, network.size, network.size)
    loaded = load_model(path, architecture=architecture, classes=_names(network.classes), shape=shape)
    loaded.model.to(lab.device)
    return loaded


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise SettingError(
            f"{option}: {text!r} is no list of numbers; one per channel, e.g. 0.485,0.456,0.406"
        ) from None


def _names(text: str | None) -> tuple[str, ...] | None:
    """Class names from ``a,b,c``, or from the lines of a file."""
    if text is None:
        return None
    if Path(text).is_file():
        try:
            return tuple(line.strip() for line in Path(text).read_text().splitlines() if line.strip())
        except (OSError, UnicodeDecodeError):
            raise DataError(f"--classes: {text!r} is a file, but no text with one class name a line") from None
    return tuple(part.strip() for part in text.split(","))


def _warn(accuracy: float, trusted: Trusted) -> None:
    if accuracy < FAR_BELOW:
        say(
            f"[yellow]warning[/]: the model is right on only {accuracy:.0%} of the {len(trusted)} trusted images. "
            f"Are the class names in the order of its outputs ({', '.join(trusted.classes[:5])}, ...), "
            "and mean and std its own?"
        )


def _write_model(path: Path, loaded: LoadedModel, model: Classifier, out: Path, facts: dict[str, object]) -> Path:
    """A bezoar model as a folder, a user's checkpoint as one file with the user's own keys."""
    if path.is_dir():
        save_model(
            model,
            out / "model",
            architecture=loaded.architecture,
            shape=loaded.shape,
            provenance={**loaded.provenance, **facts},
        )
        return out / "model"
    out.mkdir(parents=True, exist_ok=True)
    save_weights(loaded, model, out / "model.safetensors")
    return out / "model.safetensors"
