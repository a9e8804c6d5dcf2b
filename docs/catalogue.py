"""Write docs/catalogue.md from the registry: every registered method, its paper, its settings. Run by `make docs`."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

from pydantic_core import PydanticUndefined

from bezoar.component import Component, families, members, plain

TARGET = Path(__file__).with_name("catalogue.md")


def page() -> str:
    """The page as Markdown."""
    lines = [
        "# Catalogue",
        "",
        "Generated from the registry by `make docs`; `bezoar show NAME` prints the same.",
    ]
    for family in families():
        lines += ["", f"## {family}"]
        for name, cls in members(family).items():
            lines += [
                "",
                f"### {name}",
                *([f"*{cls.paper}*", ""] if cls.paper else []),
                *_explanation(cls),
                "",
                *_settings(cls),
            ]
    return "\n".join(lines) + "\n"


def _explanation(cls: type[Component]) -> list[str]:
    return inspect.cleandoc(cls.__doc__ or "").splitlines()


def _settings(cls: type[Component]) -> list[str]:
    rows = ["| setting | default |", "|---|---|"]
    for name, field in cls.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "needed" if default is PydanticUndefined else f"`{json.dumps(plain(default))}`"
        rows.append(f"| `{name}` | {shown} |")
    return rows if len(rows) > 2 else []


if __name__ == "__main__":
    TARGET.write_text(page())
