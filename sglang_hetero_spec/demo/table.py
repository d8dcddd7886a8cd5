"""The results for a reader: a table per number of requests in flight, three answers, and what the words mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sglang_hetero_spec.demo.arms import HETERO, NONE, STANDALONE, TITLES
from sglang_hetero_spec.demo.client import Answer
from sglang_hetero_spec.demo.shipped import Prompt
from sglang_hetero_spec.demo.summary import Ratio, Results, Speed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

SAMPLES = 3
SAMPLE_LINES = 14
WIDE = 115  # columns of a terminal
_HEADINGS = (
    "task",
    "drafter",
    "router\nsure",
    "accept\nlength\nHETERO",
    "accept\nlength\n{general}",
    "tok/s\nnone",
    "tok/s\nSTAND-\nALONE",
    "tok/s\nHETERO",
    "same\noutput",
)


def print_results(out: Console, results: Results, names: dict[str, str], general: str) -> None:
    """names: of the tasks, by id; general: the drafter that STANDALONE has."""
    for concurrency in results.concurrencies:
        wide = out.width >= WIDE
        out.print(task_table(results, concurrency, names, general, wide))
        for line in verdict(results, concurrency):
            out.print(line)
        out.print()


def task_table(results: Results, concurrency: int, names: dict[str, str], general: str, wide: bool = True) -> Table:
    """wide: there is room for the names of tasks; else their ids."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    total = _cells(results, concurrency, None)
    speeds = [_speed(results.speed(arm, concurrency)) for arm in (NONE, STANDALONE, HETERO)]
    footer = ["all (server)" if wide else "all", *total[:4], *speeds, total[-1]]
    table = Table(
        title=f"Mixed traffic, {_requests(concurrency)} at a time",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_footer=True,
        padding=(0, 1) if wide else (0, 1, 0, 0),
        pad_edge=wide,
    )
    for number, (heading, foot) in enumerate(zip(_HEADINGS, footer, strict=True)):
        left = number in (0, 1, 8)
        heading = heading.format(general=escape(general))
        table.add_column(heading, footer=foot, justify="left" if left else "right", no_wrap=number > 1)
    for task in results.tasks:
        cells = _cells(results, concurrency, task)
        speeds = [f"{results.tally(arm, concurrency, task).request_speed:.1f}" for arm in (NONE, STANDALONE, HETERO)]
        table.add_row(escape(names.get(task, task) if wide else task), *cells[:4], *speeds, cells[-1])
    return table


def _cells(results: Results, concurrency: int, task: str | None) -> tuple[str, str, str, str, str]:
    """Drafter, confidence, two accept lengths, identical."""
    from rich.markup import escape

    ours = results.tally(HETERO, concurrency, task).accept_length
    theirs = results.tally(STANDALONE, concurrency, task).accept_length
    routes = results.routes(concurrency, task)
    differing = len(results.differing(concurrency, task))
    return (
        escape(_drafters(routes)) if task else "",
        _number(results.confidence(concurrency, task), "{:.3f}"),
        _number(ours, "[bold]{:.2f}[/]"),
        _number(theirs, "{:.2f}"),
        "[green]yes[/]" if not differing else f"[red]no ({differing})[/]",
    )


def _drafters(routes: Counter[str]) -> str:
    if len(routes) == 1:
        return next(iter(routes))
    return ", ".join(f"{name} {number}" for name, number in routes.most_common())


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _speed(speed: Speed | None) -> str:
    return "-" if speed is None else f"{speed.overall:.1f}"


def _requests(number: int) -> str:
    return "1 request" if number == 1 else f"{number} requests"


def verdict(results: Results, concurrency: int) -> list[str]:
    """Sentences under a table: the ratios of the mixed traffic, and what differs."""
    parts = [
        _ratio(results.ratio(HETERO, NONE, concurrency), "no speculation"),
        _ratio(results.ratio(HETERO, STANDALONE, concurrency), "STANDALONE"),
    ]
    speeds = {arm: results.speed(arm, concurrency) for arm in (NONE, STANDALONE, HETERO)}
    spread = [f"{TITLES[arm]} {s.slowest:.1f}-{s.fastest:.1f}" for arm, s in speeds.items() if s]
    lines = [
        f"HETERO serves this traffic at {' and '.join(part for part in parts if part)}.",
        f"Single passes, tokens/s: {', '.join(spread)}.",
    ]
    differing = results.differing(concurrency)
    if not differing:
        return lines
    answers = {(d.task, d.prompt) for d in differing}
    gaps = [d.gap for d in differing if d.gap is not None]
    near = f" The target's two best logits lie at most {max(gaps):.2g} apart there." if gaps else ""
    lines.append(f"{len(answers)} answers differ from no speculation in some arm.{near}")
    return lines


def _ratio(ratio: Ratio | None, base: str) -> str:
    if ratio is None:
        return ""
    return f"[bold]{ratio.overall:.2f}[/] times the speed of {base} ({ratio.smallest:.2f}-{ratio.largest:.2f})"


def legend(num_passes: int, num_prompts: int) -> list[str]:
    """What the columns mean."""
    return [
        "Router sure: its mean confidence. Same output: token ids of every answer equal to no speculation.",
        "Accept length: completion tokens / verify steps, that is the tokens that one forward of the target yields"
        " (its own token included).",
        "Tok/s (tokens per second) of a task: tokens / summed latency of its requests (what one user sees); in the"
        " last row: tokens of all requests / wall time (what the server does).",
        f"{num_prompts} held-out prompts, tasks in turn, {num_passes} timed passes for each way of serving (in"
        " parentheses: single passes); prefixes are forgotten before each pass. none: no speculation.",
    ]


def choose_samples(results: Results) -> list[Answer]:
    """One finished answer of some tasks, spread over them, as HETERO gave it."""
    passes = results.of(HETERO, results.concurrencies[0])
    answers = passes[0].answers if passes else ()
    chosen: dict[str, Answer] = {}
    for answer in sorted(answers, key=lambda a: (not a.finished, a.prompt)):
        chosen.setdefault(answer.task, answer)
    tasks = [task for task in results.tasks if task in chosen]
    number = min(SAMPLES, len(tasks))
    spread = [tasks[round(i * (len(tasks) - 1) / max(1, number - 1))] for i in range(number)]
    return [chosen[task] for task in spread]


def sample_panel(answer: Answer, prompts: Sequence[Prompt], names: dict[str, str]) -> Panel:
    from rich.console import Group
    from rich.markup import escape
    from rich.panel import Panel
    from rich.text import Text

    length = answer.completion_tokens / answer.verify_steps if answer.verify_steps else 1.0
    title = (
        f"[bold]{escape(names.get(answer.task, answer.task))}[/]: drafter {escape(str(answer.drafter))},"
        f" accept length {length:.2f}"
    )
    body = Group(
        Text(prompts[answer.prompt].text.strip(), style="dim"),
        Text(),
        Text(_shortened(answer.text.strip())),
    )
    return Panel(body, title=title, title_align="left", width=100)


def _shortened(text: str) -> str:
    """Control characters are shown, not obeyed; long answers are cut."""
    lines = "".join(c if c.isprintable() or c == "\n" else " " for c in text).split("\n")
    return "\n".join([*lines[:SAMPLE_LINES], "..."] if len(lines) > SAMPLE_LINES else lines)
