"""Run the benchmarks, print their tables, and write ``results/<machine>.json``; called by ``make bench``.

Usage: ``python benchmarks/run.py [NAME ...] [--json] [--readme] [--quick]``
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = (
    "small_things",
    "training",
    "fast_recipe",
    "repairs",
    "scheduling",
    "inversion",
    "crafting",
    "certification",
    "smoothing",
)
COLUMNS = ("measured", "bezoar", "against", "ratio", "aim")
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"

# no benchmark may wait for a network while it looks for images
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description="Measure bezoar's speed against what it is compared with.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which benchmarks ({', '.join(NAMES)}); all by default"
    )
    parser.add_argument("--json", action="store_true", help="print the results as one JSON document on stdout")
    parser.add_argument("--readme", action="store_true", help="only copy the stored results into README.md")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once: does everything run? Stores nothing")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; by default as many as it takes itself")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; known: {', '.join(NAMES)}")
    if given.readme:
        fill_readme()
        return
    results = measure([name for name in NAMES if name in (given.names or NAMES)], given.quick, given.threads)
    if given.json:
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(table(results)) + "\n")


def measure(names: list[str], quick: bool, threads: int | None) -> dict[str, Any]:
    """Run benchmarks one after the other in this process, and store each one's results as soon as they are there."""
    import torch  # noqa: PLC0415 - after the environment is set, and not for --readme
    from timing import machine_label, versions  # noqa: PLC0415

    if threads is not None:
        torch.set_num_threads(threads)
    results: dict[str, Any] = {"machine": machine_label(), "benchmarks": {}}
    for name in names:
        sys.stderr.write(f"{name}\n")
        started = time.monotonic()
        report = importlib.import_module(name).measure(quick=quick)
        results["benchmarks"][name] = {
            "date": datetime.now(UTC).date().isoformat(),
            "versions": versions(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "seconds": round(time.monotonic() - started),
            "settings": report.settings,
            "rows": [asdict(row) for row in report.rows],
        }
        if not quick:
            store(results)
            fill_readme()
    return results


def store(results: dict[str, Any]) -> None:
    """Write the results of this machine; benchmarks that were not run keep their earlier results."""
    path = HERE / "results" / f"{results['machine']}.json"
    path.parent.mkdir(exist_ok=True)
    earlier = json.loads(path.read_text())["benchmarks"] if path.exists() else {}
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(results | {"benchmarks": earlier | results["benchmarks"]}, indent=2) + "\n")
    scratch.replace(path)


def table(results: dict[str, Any]) -> list[str]:
    """The results of one machine as Markdown."""
    lines = [f"### {results['machine']}"]
    for name in NAMES:
        if name not in results["benchmarks"]:
            continue
        one = results["benchmarks"][name]
        packages = ", ".join(f"{package} {number}" for package, number in one["versions"].items())
        settings = ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in one["settings"].items())
        lines += ["", f"**{name}**, {one['date']}, {one['cores']} cores, {one['threads']} threads; {packages}.", ""]
        lines += [f"{settings}.", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        for row in one["rows"]:
            cells = (row["what"], row["bezoar"], row["against"], row["ratio"], row["aim"])
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def fill_readme() -> None:
    """Put the tables of all stored machines between the two markers of README.md."""
    page = HERE / "README.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    stored = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]
    tables = "\n\n".join("\n".join(table(results)) for results in stored)
    page.write_text(f"{before}{BEGIN}\n{tables or 'No results are stored yet; run `make bench`.'}\n{END}{after}")


if __name__ == "__main__":
    main()
