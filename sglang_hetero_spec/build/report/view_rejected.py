"""What did not make it into the pool, and why: log lines, prompts, outliers, drafters, starts of training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sglang_hetero_spec.build.report.inputs import Inputs
from sglang_hetero_spec.build.report.matrix import Dismissed
from sglang_hetero_spec.build.report.text import length, plural, shortened, speed, whole

_SHOWN = 12
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True)
class RejectedView:
    """One table of rejected things; `note` stands where there is none or no file that says so."""

    heading: str
    note: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    more: str = ""


def rejected_views(inputs: Inputs, dismissed: Sequence[Dismissed] | None) -> tuple[RejectedView, ...]:
    return (
        _lines(inputs),
        _repeated(inputs),
        _unanswered(inputs),
        _outliers(inputs),
        _drafters(inputs, dismissed),
        _left_out(inputs),
        _starts(inputs),
    )


def _lines(inputs: Inputs) -> RejectedView:
    heading = "Lines of the log"
    if inputs.rejects is None:
        return RejectedView(heading, "Not known: the folder has no rejects.jsonl.")
    if not inputs.rejects:
        return RejectedView(heading, "None: every line of the log was a prompt.")
    rows = [(whole(item.line), shortened(item.reason, 160), shortened(item.raw, 160)) for item in inputs.rejects]
    reasons = _reasons(item.reason for item in inputs.rejects)
    note = f"{plural(len(rows), 'line')} held no prompt that could be used: {reasons}."
    return _table(heading, note, ("line", "why", "what it said"), rows)


def _repeated(inputs: Inputs) -> RejectedView:
    heading = "Repeated prompts"
    if inputs.partition is None:
        return RejectedView(heading, "Not known: the folder has no partition.json.")
    exact, near = inputs.partition.exact_duplicates, inputs.partition.near_duplicates
    if not exact + near:
        return RejectedView(heading, "None: every prompt of the log is there once.")
    words = f"{plural(exact, 'prompt')} of the log came again, {whole(near)} nearly so; the first of each was kept."
    return RejectedView(heading, words)


def _unanswered(inputs: Inputs) -> RejectedView:
    heading = "Prompts without an answer"
    if inputs.unanswered is None:
        return RejectedView(heading, "None is on record: the folder has no answers.rejects.jsonl.")
    if not inputs.unanswered:
        return RejectedView(heading, "None: the target answered every prompt.")
    texts = {prompt.id: prompt.text for prompt in inputs.prompts or ()}
    rows = [
        (item.id, shortened(item.reason, 160), shortened(texts.get(item.id, ""), 120)) for item in inputs.unanswered
    ]
    reasons = _reasons(item.reason for item in inputs.unanswered)
    note = f"The target gave no answer to {plural(len(rows), 'prompt')}: {reasons}."
    return _table(heading, note, ("prompt", "why", "how it begins"), rows)


def _outliers(inputs: Inputs) -> RejectedView:
    heading = "Outliers"
    if inputs.prompts is None:
        return RejectedView(heading, "Not known: the folder has no prompts.jsonl.")
    outliers = [prompt for prompt in inputs.prompts if prompt.task is None]
    if not outliers:
        return RejectedView(heading, "None: every prompt belongs to a task.")
    number = f"{plural(len(outliers), 'prompt')} of {whole(len(inputs.prompts))}"
    note = f"{number} resembled no task enough to belong to it."
    return _table(
        heading, note, ("prompt", "how it begins"), [(item.id, shortened(item.text, 160)) for item in outliers]
    )


def _drafters(inputs: Inputs, dismissed: Sequence[Dismissed] | None) -> RejectedView:
    heading = "Drafters"
    if dismissed is None or inputs.assignment is None:
        return RejectedView(heading, "Not known: it takes profile.jsonl and assignment.json.")
    if not dismissed:
        return RejectedView(heading, "None: every drafter that was profiled serves a task.")
    rows = [
        (str(item.candidate), inputs.title(item.task), speed(item.tokens_per_second), _chosen(item), _why(item))
        for item in dismissed
    ]
    note = "These were profiled and serve no task. Shown is the task on which each came nearest to what serves it."
    columns = ("drafter (steps/topk/draft tokens)", "nearest on", "its tokens/s", "chosen there", "why not")
    return _table(heading, note, columns, rows)


def _chosen(item: Dismissed) -> str:
    return f"{item.chosen}: {speed(item.chosen_tokens_per_second)}"


def _why(item: Dismissed) -> str:
    if item.is_slower:
        return "slower than the chosen one on every task"
    return "faster on this task alone, but not within the budget or in the mixed batch"


def _left_out(inputs: Inputs) -> RejectedView:
    heading = "Drafters not measured somewhere"
    left_out = inputs.assignment.left_out if inputs.assignment else ()
    if not left_out:
        return RejectedView(heading, "None that is known.")
    number = plural(len(left_out), "choice was", "choices were")
    note = f"{number} not considered, because the profile does not cover them."
    return _table(heading, note, ("drafter on task",), [(shortened(item, 160),) for item in left_out])


def _starts(inputs: Inputs) -> RejectedView:
    """Starts of training that were tried: the fastest after a short training went on."""
    heading = "Ways to start a drafter"
    rows = []
    for learned in inputs.learned:
        for probe in learned.made.probes if learned.made else ():
            rows.append(_probe_row(learned.name, probe))
    if not rows:
        return RejectedView(heading, "None was tried beside the one that was used.")
    note = "Each was trained shortly; the one of highest expected speed (tokens per verify step over its cost) went on."
    return _table(heading, note, ("drafter", "start", "accept length", "expected speed"), rows)


def _probe_row(name: str, probe: dict) -> tuple[str, ...]:
    counts = probe.get("counts") or {}
    steps = counts.get("verify_steps") or 0
    accept = length(counts["completion_tokens"] / steps) if steps and "completion_tokens" in counts else ""
    value = probe.get("speed")
    return (
        name,
        shortened(str(probe.get("start", "")), 80),
        accept,
        f"{value:.2f}" if isinstance(value, int | float) else "",
    )


def _table(heading: str, note: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> RejectedView:
    more = f"and {whole(len(rows) - _SHOWN)} more" if len(rows) > _SHOWN else ""
    return RejectedView(heading, note, columns, tuple(rows[:_SHOWN]), more)


def _reasons(reasons: Iterable[str]) -> str:
    """The reasons by frequency; numbers in them do not make them different."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for reason in reasons:
        kind = _NUMBERS.sub("#", reason)
        first.setdefault(kind, reason)
        counts[kind] += 1
    words = [f"{shortened(first[kind], 80)} ({whole(count)})" for kind, count in counts.most_common(6)]
    return "; ".join([*words, *(["and others"] if len(counts) > 6 else [])])
