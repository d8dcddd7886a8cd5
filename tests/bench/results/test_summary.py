"""summary.md: tables that Markdown can show, whatever the tasks are called, and nothing invented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.bench.results.aggregate import aggregate
from sglang_hetero_spec.bench.results.finish import judged, rounded
from sglang_hetero_spec.bench.results.run_files import read_run
from sglang_hetero_spec.bench.results.summary import escaped, table
from sglang_hetero_spec.bench.results.words import command, digits, machine, setting_title, target, with_interval
from tests.bench.made_up import Shape, edit_metadata, write_run

NASTY = ("a|b <script>alert(1)</script>", "`x`\n| y |", "\u4efb\u52a1 \U0001f600 $\\alpha$", "\x1b[31m\u202e")


def summary_of(folder: Path, why_not: list[str] | None = None) -> tuple[str, dict[str, Any]]:
    run = read_run(folder)
    finished = judged(run, rounded(aggregate(run)), why_not or [])
    return finished.summary, finished.aggregate


def rows_of(text: str, heading: str) -> list[list[str]]:
    """Cells of the table below a heading."""
    below = text.split(f"**{heading}**", 1)[1].split("\n\n")[1]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in below.splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    shape = Shape(arms=("none", "standalone", "ngram", "hetero", "hetero-oracle"), num_prompts=6, tokens=16)
    return summary_of(write_run(tmp_path_factory.mktemp("summary") / "run", shape))


def test_a_table_for_each_setting_with_the_mixed_row_last(plain: tuple[str, dict[str, Any]]) -> None:
    text, found = plain
    head, _, *rows = rows_of(text, "4 in flight")
    assert head[:2] == ["task", "drafter"] and head[-1] == "same output"
    assert [row[0] for row in rows] == ["python", "sql", "german", "**all, mixed**"]
    assert {len(row) for row in rows} == {len(head)}
    arms = found["settings"]["c4"]["arms"]
    python, mixed = rows[0], rows[-1]
    assert python[1] == "python" and python[-1] == "yes"
    place = head.index("accept length, hetero")
    assert python[place] == f"{arms['hetero']['tasks']['python']['accept_length']['value']:.2f}"
    speed = arms["none"]["all"]["server_tokens_per_second"]
    assert mixed[head.index("tokens/s, none")] == with_interval(speed, digits)
    assert "accept length, none" not in head and "tokens/s, hetero-oracle" not in head


def test_ratios_over_the_baseline_and_of_hetero_over_the_others(plain: tuple[str, dict[str, Any]]) -> None:
    text, found = plain
    _, _, *rows = rows_of(text, "Speed of the server, as a ratio")
    assert [row[0] for row in rows] == [
        "standalone / none", "ngram / none", "hetero / none", "hetero-oracle / none",
        "hetero / standalone", "hetero / hetero-oracle",
    ]  # fmt: skip
    item = found["settings"]["c1"]["ratios"]["hetero/standalone"]["all"]["server_tokens_per_second"]
    assert rows[4][1] == f"{item['value']:.2f} ({item['low']:.2f}-{item['high']:.2f})"


def test_what_it_was_taken_on_and_how_to_make_it_again(plain: tuple[str, dict[str, Any]]) -> None:
    text, _ = plain
    assert "Target: target (200M parameters). a stand-in." in text
    assert "A Made-Up CPU, 4 cores, 2 engine threads, float32, SGLang 0.5.23" in text
    assert "\n    hetero-spec bench --pool pool/ --concurrency 1,4\n" in text
    assert "Citable: clean commit" in text


def test_names_of_tasks_break_no_table(tmp_path: Path) -> None:
    shape = Shape(arms=("none", "hetero"), settings=("c1",), tasks=NASTY, num_prompts=4, tokens=8)
    text, found = summary_of(write_run(tmp_path / "run", shape), ["It | <b>rained</b>."])
    assert found["tasks"] == list(NASTY)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    unescaped = [line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines]
    assert len(set(unescaped[:6])) == 1, lines[:6]
    assert "<script>" not in text and "\x1b" not in text and "\u202e" not in text and "<b>" not in text
    assert "\u4efb\u52a1 \U0001f600" in text


def test_a_difference_is_counted_and_not_called_yes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Shape(arms=("none", "hetero"), settings=("c1",), num_prompts=3, tokens=8))
    lines = (folder / "requests.jsonl").read_text().splitlines()
    row = json.loads(lines[-1])
    row["output_ids"][0] += 1
    (folder / "requests.jsonl").write_text("\n".join([*lines[:-1], json.dumps(row)]) + "\n")
    rows = rows_of(summary_of(folder)[0], "1 in flight")
    assert sorted(cell[-1] for cell in rows[2:]) == ["no (1 of 18)", "no (1 of 6)", "yes", "yes"]


def test_a_run_of_hardly_anything_says_little_and_breaks_nothing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Shape(arms=("none",), settings=("r2.5",), num_prompts=1, repetitions=1))
    edit_metadata(folder, lambda m: [m.pop(key) for key in ("target", "machine", "command", "arms", "versions")])
    text, _ = summary_of(folder)
    assert "**2.5 requests/s (Poisson)**" in text and "as a ratio" not in text and "None" not in text


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346"), (0, "0.000"), (None, ""),
     (0.00012, "1.20e-04")],
)  # fmt: skip
def test_digits(value: float | None, written: str) -> None:
    assert digits(value) == written


def test_words_of_what_is_not_known() -> None:
    assert (machine({}), target({}), command({}), setting_title("x<y")) == ("", "", "", "x<y")
    assert command({"command": ["bench", "--out", "a b"]}) == "hetero-spec bench --out 'a b'"


def test_cells_are_escaped_once() -> None:
    assert escaped("a\\|b") == "a\\\\\\|b"
    assert table(["a"], [["b|c"]]).splitlines()[2] == "| b\\|c |"


def test_arms_that_did_not_alternate_are_named() -> None:
    from sglang_hetero_spec.bench.results.summary import _facts

    metadata = {"workload": {"num_prompts": 3, "name": "w"}, "repetitions": 2}
    assert "the arms alternating" in _facts({**metadata, "groups": [["none", "hetero"]]})
    assert "up together (none and hetero; ngram)" in _facts({**metadata, "groups": [["none", "hetero"], ["ngram"]]})
