"""`bezoar store`: what lies in the store, whether it is whole, and how to get space back."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

import typer

from bezoar.cli.options import Json

store = typer.Typer(no_args_is_help=True, help="See what has been computed and kept, check it, and free space.")

Stage = Annotated[str | None, typer.Option(help="Only this kind of stage: train, repair, inspect, ...")]


@store.command("list")
def list_(stage: Stage = None, json: Json = False) -> None:
    """Sum up what is kept, stage by stage; with --json every entry.

    Example: bezoar store list
    """
    from bezoar import inventory  # noqa: PLC0415
    from bezoar.cli.console import in_bytes, in_time, print_json, print_table, stdout  # noqa: PLC0415

    kept = _store()
    found = [one for one in inventory.entries(kept) if stage in (None, one.stage)]
    if json:
        print_json({"root": str(kept.root), "entries": [_plain(one) for one in found]})
        return
    rows: list[list[str]] = []
    for name in sorted({one.stage for one in found}):
        few = [one for one in found if one.stage == name]
        seconds = sum(float(one.record["seconds"]) for one in few)
        rows.append([name, f"{len(few):,}", in_bytes(sum(one.size for one in few)), in_time(seconds)])
    print_table(f"The store {kept.root}", ["stage", "entries", "size", "time they took"], rows)
    total = sum(one.size for one in found)
    stdout.print(f"{len(found):,} entries, {in_bytes(total)}", highlight=False)


@store.command()
def show(
    address: Annotated[
        str, typer.Argument(help="The beginning of an address, as 'bezoar store list --json' gives it.")
    ],
    json: Json = False,
) -> None:
    """Explain one entry: its recipe, what it was made from, and what it holds.

    Example: bezoar store show 3f9a
    """
    from bezoar import inventory  # noqa: PLC0415
    from bezoar.cli.console import in_bytes, in_time, print_json, stdout  # noqa: PLC0415

    kept = _store()
    entry = inventory.lookup(kept, address)
    users = [one.address for one in inventory.entries(kept) if entry.address in one.record["inputs"].values()]
    document = {**_plain(entry), **entry.record, "used_by": users}
    if json:
        print_json(document)
        return
    stdout.print(f"{entry.stage} {entry.address}", highlight=False)
    stdout.print(f"{in_bytes(entry.size)}, took {in_time(float(entry.record['seconds']))}", highlight=False)
    for name in ("settings", "seed", "inputs", "tensors", "facts", "used_by"):
        text = json_module.dumps(document[name], indent=2)
        stdout.print(f"{name}: {text if len(text) < LONG else text[:LONG] + ' ...'}", highlight=False)


@store.command()
def verify(json: Json = False) -> None:
    """Check every entry against its checksum, and move damaged ones aside; exit status 1 if there are any.

    They are made again when they are needed.

    Example: bezoar store verify
    """
    import warnings  # noqa: PLC0415

    from bezoar import inventory  # noqa: PLC0415
    from bezoar.cli.console import Bars, print_json, stdout  # noqa: PLC0415

    kept = _store()
    folders = kept.folders()
    found: list[tuple[str, str]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong is said below
        for folder, why in inventory.damaged(Bars().track(folders, "verify", len(folders))):
            kept.set_aside(folder, why)
            found.append((folder.name, why))
    if json:
        damaged = [{"address": address, "damage": why} for address, why in found]
        print_json({"root": str(kept.root), "entries": len(folders), "damaged": damaged})
    else:
        for _, why in found:
            stdout.print(f"{why}; moved aside", highlight=False)
        stdout.print(f"{len(folders):,} entries, {len(found)} of them damaged", highlight=False)
    raise typer.Exit(1 if found else 0)


@store.command()
def gc(
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Also entries that nobody has read for so many days.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Of those, only this kind of stage: tune, repair, ...")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; delete nothing.")] = False,
    json: Json = False,
) -> None:
    """Delete what nobody will ask for again: what was moved aside, and entries of methods that have been revised since.

    With --older-than also what has not been used for long; it is computed again when it is needed.

    Example: bezoar store gc --older-than 30 --stage tune --dry-run
    """
    from bezoar import inventory  # noqa: PLC0415
    from bezoar.cli.console import in_bytes, print_json, print_table, stdout  # noqa: PLC0415
    from bezoar.errors import SettingError  # noqa: PLC0415

    if stage is not None and older_than is None:
        raise SettingError("--stage: it narrows --older-than, which is missing")
    kept = _store()
    found = list(inventory.entries(kept))
    chosen = {"of revised methods": inventory.outdated(found)}
    if older_than is not None:
        gone = {one.address for one in chosen["of revised methods"]}
        old = inventory.unused(found, older_than, stage)
        chosen[f"unused for {older_than:g} days"] = [one for one in old if one.address not in gone]
    aside = inventory.set_aside(kept)
    sizes = {why: sum(one.size for one in few) for why, few in chosen.items()}
    counts = {why: len(few) for why, few in chosen.items()}
    sizes["moved aside"] = sum(map(inventory.size_of, aside))
    counts["moved aside"] = len(aside)
    if not dry_run:
        for few in chosen.values():
            inventory.remove(kept, few)
        inventory.remove_damaged(kept)
    if json:
        lines = [{"why": why, "entries": counts[why], "bytes": sizes[why]} for why in sizes]
        print_json({"root": str(kept.root), "deleted": not dry_run, "entries": lines})
        return
    rows = [[why, f"{counts[why]:,}", in_bytes(sizes[why])] for why in sizes]
    print_table(f"The store {kept.root}", ["entries", "how many", "size"], rows)
    verb = "Would free" if dry_run else "Freed"
    stdout.print(f"{verb} {in_bytes(sum(sizes.values()))}", highlight=False)


LONG = 2000
"""Longer parts of an entry are cut for the eye; --json prints all."""


def _store() -> Any:
    from bezoar.store import Store  # noqa: PLC0415

    return Store()


def _plain(entry: Any) -> dict[str, Any]:
    """An entry as plain JSON values, without what it holds."""
    return {
        "address": entry.address,
        "stage": entry.stage,
        "seed": entry.record["seed"],
        "methods": entry.methods,
        "bytes": entry.size,
        "seconds": entry.record["seconds"],
        "used": entry.used,
    }
