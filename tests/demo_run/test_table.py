"""What a reader sees."""

from __future__ import annotations

import dataclasses
import io

from rich.console import Console, RenderableType

from sglang_hetero_spec.demo.client import Answer, Pass
from sglang_hetero_spec.demo.shipped import Prompt
from sglang_hetero_spec.demo.summary import Difference, Results
from sglang_hetero_spec.demo.table import choose_samples, legend, print_results, sample_panel
from tests.demo_run.canned import answer, passes

NAMES = {"sql": "SQL queries", "code": "[bold]Python[/]"}


def shown(*things: RenderableType) -> str:
    out = Console(file=io.StringIO(), width=160, highlight=False)
    for thing in things:
        out.print(thing)
    return out.file.getvalue()  # type: ignore[attr-defined]


def shown_results(results: Results) -> str:
    out = Console(file=io.StringIO(), width=160, highlight=False)
    print_results(out, results, NAMES, "general")
    return out.file.getvalue()  # type: ignore[attr-defined]


def row(text: str, start: str) -> str:
    line = next(line for line in text.splitlines() if line.strip().startswith(start))
    return " ".join(line.split())


def test_a_row_for_each_task_and_one_for_all() -> None:
    text = shown_results(Results(passes()))
    assert row(text, "SQL queries") == "SQL queries sql 0.900 4.00 2.00 4.0 8.0 16.0 yes"
    # Names come from pool.json: markup in them is shown, not obeyed.
    assert row(text, "[bold]Python") == "[bold]Python[/] general 0.900 3.00 2.00 4.0 6.0 8.0 yes"
    assert row(text, "all") == "all (server) 0.900 3.33 2.00 4.0 8.0 10.0 yes"
    assert "2.50 times the speed of no speculation (2.00-4.00)" in text
    assert "1.25 times the speed of STANDALONE (1.00-2.00)" in text


def test_a_difference_is_shown_with_how_close_the_choice_was() -> None:
    difference = Difference("hetero", 4, 1, "code", place=5, gap=2e-5)
    text = shown_results(Results(passes(), [difference]))
    assert row(text, "[bold]Python").endswith("no (1)") and row(text, "SQL").endswith("yes")
    assert "1 answers differ" in text and "at most 2e-05 apart" in text


def _longest(one: Answer) -> Answer:
    return dataclasses.replace(one, task="translate", drafter=one.drafter and "translate")


def test_each_number_of_requests_has_a_table() -> None:
    ones = [Pass(one.arm, 1, one.wall_seconds, one.answers) for one in passes()]
    text = shown_results(Results([*ones, *passes()]))
    assert "1 request at a time" in text and "4 requests at a time" in text


def test_samples_are_spread_and_finished() -> None:
    rows = tuple(
        answer(number, task, (1, 2), 1.0, drafter=task, verify_steps=1, finished=number >= 5)
        for number, task in enumerate(["a", "b", "c", "d", "e"] * 2)
    )
    results = Results([Pass("hetero", 4, 1.0, rows)])
    assert [(sample.task, sample.prompt) for sample in choose_samples(results)] == [("a", 5), ("c", 7), ("e", 9)]


def test_an_answer_cannot_write_to_the_terminal() -> None:
    bad = answer(0, "sql", (1, 2), 1.0, drafter="sql", verify_steps=1, text="\x1b[31m[red]x[/red]\n" + "line\n" * 40)
    text = shown(sample_panel(bad, [Prompt("ask [this]", "sql")], NAMES))
    assert "\x1b" not in text and "[red]x[/red]" in text and "ask [this]" in text
    assert text.count("line") < 20 and "..." in text


def test_the_definition_of_accept_length_is_there() -> None:
    assert any("Accept length: completion tokens / verify steps" in line for line in legend(2, 18))


def test_eighty_columns_are_enough() -> None:
    out = Console(file=io.StringIO(), width=80, highlight=False)
    results = Results([Pass(one.arm, 4, one.wall_seconds, tuple(_longest(a) for a in one.answers)) for one in passes()])
    print_results(out, results, NAMES, "general")
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert row(text, "translate") == "translate translate 0.900 3.33 2.00 4.0 6.7 10.0 yes"
