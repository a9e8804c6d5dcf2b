"""How records become artefacts of the store, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import torch

from bezoar.records import Certificates, Dataset, Inspection, Poison, Tier
from bezoar.roles import Splits
from bezoar.store import Artefact

Memory = Mapping[str, torch.Tensor]


def prefixed(name: str, tensors: Memory) -> dict[str, torch.Tensor]:
    """Named tensors under a common name, so that several sets of them fit into one artefact."""
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def without_prefix(name: str, tensors: Memory) -> dict[str, torch.Tensor]:
    """The inverse of `_prefixed`; tensors of other names are left out."""
    start = f"{name}."
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}


def pack_splits(splits: Splits) -> Artefact:
    """Both halves of a data set."""
    tensors: dict[str, torch.Tensor] = {}
    for name, part in (("train", splits.train), ("test", splits.test)):
        tensors |= {f"{name}.images": part.images(), f"{name}.labels": part.labels}
        if part.groups is not None:
            tensors[f"{name}.groups"] = part.groups
    return Artefact(tensors, {"classes": list(splits.train.classes)})


def unpack_splits(artefact: Artefact) -> Splits:
    """The inverse of `pack_splits`, in memory."""
    classes = tuple(artefact.facts["classes"])
    parts = (
        Dataset.in_memory(
            artefact.tensors[f"{name}.images"],
            artefact.tensors[f"{name}.labels"],
            classes,
            artefact.tensors.get(f"{name}.groups"),
        )
        for name in ("train", "test")
    )
    return Splits(*parts)


def pack_poison(poison: Poison) -> Artefact:
    """A poison."""
    tensors = {"rows": poison.rows, "images": poison.images, "labels": poison.labels}
    return Artefact(
        tensors | prefixed("memory", poison.memory),
        {"boost": poison.boost, "settled": poison.settled, "added": poison.added},
    )


def unpack_poison(artefact: Artefact) -> Poison:
    """The inverse of `pack_poison`."""
    tensors = artefact.tensors
    memory, facts = without_prefix("memory", tensors), artefact.facts
    settled, added = (facts.get(name, False) for name in ("settled", "added"))  # which an older store does not say
    return Poison(tensors["rows"], tensors["images"], tensors["labels"], facts["boost"], memory, settled, added)


def pack_inspection(inspection: Inspection) -> Artefact:
    """A detector's answer."""
    tensors = {"scores": inspection.scores}
    if inspection.triggers is not None:
        tensors["triggers"] = inspection.triggers
    if inspection.masks is not None:
        tensors["masks"] = inspection.masks
    facts = {
        "abstained": inspection.abstained,
        "p_value": inspection.p_value,
        "tiers": [asdict(tier) for tier in inspection.tiers],
    }
    return Artefact(tensors | prefixed("evidence", inspection.evidence), facts)


def unpack_inspection(artefact: Artefact) -> Inspection:
    """The inverse of `pack_inspection`."""
    tensors = artefact.tensors
    facts = artefact.facts
    return Inspection(
        tensors["scores"],
        tensors.get("triggers"),
        tensors.get("masks"),
        without_prefix("evidence", tensors),
        facts["abstained"],
        facts.get("p_value"),  # stages of an older store have neither this nor tiers
        tuple(Tier(**tier) for tier in facts.get("tiers", [])),
    )


def pack_certificates(certificates: Certificates) -> Artefact:
    """A certifier's answers."""
    columns = ("predicted", "radius", "certified", "evidence", "method")
    tensors = {name: getattr(certificates, name) for name in columns}
    return Artefact(tensors, {"methods": list(certificates.methods), "norm": certificates.norm})


def unpack_certificates(artefact: Artefact) -> Certificates:
    """The inverse of `pack_certificates`."""
    tensors, facts = artefact.tensors, artefact.facts
    return Certificates(
        tensors["predicted"],
        tensors["radius"],
        tensors["certified"],
        tensors["evidence"],
        tensors["method"],
        tuple(facts["methods"]),
        facts["norm"],
    )
