"""Tables and figures as files of their own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from pyarrow import parquet

from bezoar.records import Estimate
from bezoar.report.page import Percent, Picture, Section, Table
from bezoar.report.parts import as_numbers, write_parts

HALF = Estimate(0.5, -0.25, 0.75, 20, "models")
TABLE = Table(("name | kind", "share", "AUC"), [["a_b & c", Percent(HALF), HALF], ["plain", 3, 0.125]])


def sections(title: str = "What is left: 1 %") -> list[Section]:
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    return [Section("Words alone"), Section(title, table=TABLE, figures=[Picture(figure, ""), Picture(figure, "")])]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_every_table_and_figure_is_a_file_numbered_as_on_the_page(tmp_path: Path) -> None:
    write_parts(tmp_path, sections())
    stem = "02-what-is-left-1"
    assert names(tmp_path / "tables") == [f"{stem}.{kind}" for kind in ("csv", "md", "parquet", "tex")]
    assert names(tmp_path / "figures") == [f"{stem}-{place}.{kind}" for place in (1, 2) for kind in ("png", "svg")]


def test_a_cell_keeps_its_interval_and_its_n_in_every_form(tmp_path: Path) -> None:
    write_parts(tmp_path, sections())
    read = pd.read_csv(tmp_path / "tables" / "02-what-is-left-1.csv")
    share = "50.0 % [\N{MINUS SIGN}25.0, 75.0] (n = 20 models)"
    assert read.to_numpy().tolist()[0][:2] == ["a_b & c", share]
    lines = (tmp_path / "tables" / "02-what-is-left-1.md").read_text().splitlines()
    assert lines[0] == "| name \\| kind | share | AUC |"
    assert lines[2].startswith(f"| a_b & c | {share} | 0.500 [")
    latex = (tmp_path / "tables" / "02-what-is-left-1.tex").read_text()
    assert r"a\_b \& c & 50.0 \% [-25.0, 75.0] (n = 20 models)" in latex
    assert latex.startswith(r"\begin{tabular}")


def test_scripts_find_an_estimate_as_numbers_in_parquet(tmp_path: Path) -> None:
    """Second route: another reader of parquet than pandas, against the estimates themselves."""
    write_parts(tmp_path, sections())
    read = parquet.read_table(tmp_path / "tables" / "02-what-is-left-1.parquet").to_pydict()
    ends = ("", " low", " high", " n")
    assert list(read) == ["name | kind", *(f"share{end}" for end in ends), *(f"AUC{end}" for end in ends)]
    for name in ("share", "AUC"):
        assert [read[f"{name}{end}"][0] for end in ends] == [HALF.value, HALF.low, HALF.high, HALF.n]
    assert [read[f"share{end}"][1] for end in ends] == [3.0, None, None, None]
    assert read["AUC"][1] == 0.125
    assert read["name | kind"] == ["a_b & c", "plain"]


def test_words_among_estimates_and_columns_of_one_name_are_kept() -> None:
    lone = Estimate(float("nan"), -float("inf"), float("inf"), 0, "models")
    two = "6.0\N{NO-BREAK SPACE}% and 18.0\N{NO-BREAK SPACE}%"
    table = Table(
        ("left", "left", "left n", "seed", "mixed"),
        [[two, 1, "x", 7, "a"], [HALF, 2, "y", "", 0.5], [lone, 3, "", 8, 1]],
    )
    read = as_numbers(table)
    assert list(read.columns) == [
        *("left", "left low", "left high", "left n", "left text"),
        *("left (2)", "left n (2)", "seed", "mixed"),
    ]
    assert read["left"].isna().tolist() == [True, False, True]
    assert read["left high"].tolist()[1:] == [HALF.high, float("inf")]
    assert read["left n"].tolist()[1:] == [20, 0]
    assert read["left text"].tolist() == ["6.0 % and 18.0 %", "", ""]
    assert read["left (2)"].tolist() == [1, 2, 3]
    assert read["seed"].tolist()[::2] == [7, 8]
    assert read["seed"].isna().tolist() == [False, True, False]
    assert read["mixed"].tolist() == ["a", "0.5", "1"]


def test_a_new_report_replaces_the_files_of_the_old_one_and_no_others(tmp_path: Path) -> None:
    write_parts(tmp_path, sections("old"))
    mine = tmp_path / "figures" / "mine.png"
    mine.write_text("")
    write_parts(tmp_path, sections("new"))
    assert not [name for name in names(tmp_path) if "old" in name]
    assert mine.exists()
