"""summary.md: a run for a README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sglang_hetero_spec.bench.results import words
from sglang_hetero_spec.bench.results.aggregate import BASES
from sglang_hetero_spec.bench.results.definitions import DEFINITIONS
from sglang_hetero_spec.build.report.text import clean

_DEFINED = (
    "accept_length",
    "request_tokens_per_second",
    "server_tokens_per_second",
    "identical",
    "ratio",
    "interval",
)
_ROUTED = "hetero"
_BESIDE = ("hetero-oracle", "hetero-random", "hetero-worst")  # in the table of ratios only
_UNSHOWN = 1 + len(BASES)


def summary(metadata: dict[str, Any], found: dict[str, Any], why_not: Sequence[str]) -> str:
    """found: the aggregate."""
    blocks = []
    for setting in found["settings"]:
        if found["settings"][setting]["arms"]:
            blocks += [f"**{words.setting_title(setting)}**", _tasks_table(found, setting)]
    ratios = _ratios_table(found)
    blocks += ["**Speed of the server, as a ratio** (95% interval over repetitions)", ratios] if ratios else []
    blocks += [_facts(metadata), _verdict(why_not), _definitions(found)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _tasks_table(found: dict[str, Any], setting: str) -> str:
    arms = found["settings"][setting]["arms"]
    routed = _ROUTED if _ROUTED in arms else next((arm for arm in arms if arm.startswith(_ROUTED)), None)
    accepting = [arm for arm in _shown(arms, routed) if arms[arm]["all"]["accept_length"]["value"] is not None]
    shown = _shown(arms, routed)
    head = ["task", "drafter", *(f"accept length, {arm}" for arm in accepting)]
    head += [f"tokens/s, {arm}" for arm in shown] + ["same output"]
    rows = [
        _task_row(found, setting, task, routed, (accepting, shown))
        for task in found["tasks"]
        if any(task in arm["tasks"] for arm in arms.values())
    ]
    last = ["**all, mixed**", ""]
    last += [words.with_interval(arms[arm]["all"]["accept_length"]) for arm in accepting]
    last += [words.with_interval(arms[arm]["all"]["server_tokens_per_second"], words.digits) for arm in shown]
    last.append(_same(arm["all"] for arm in arms.values()))
    return table(head, [*rows, last])


def _task_row(
    found: dict[str, Any], setting: str, task: str, routed: str | None, columns: tuple[list[str], list[str]]
) -> list[str]:
    arms = found["settings"][setting]["arms"]
    of = {arm: arms[arm]["tasks"].get(task) for arm in arms}
    served = of[routed]["routes"] if routed and of[routed] else {}
    drafters = ", ".join(sorted(served, key=lambda name: (-served[name], name)))
    row = [task, drafters]
    row += [words.fixed(of[arm]["accept_length"]["value"]) if of[arm] else "" for arm in columns[0]]
    row += [words.digits(of[arm]["request_tokens_per_second"]["value"]) if of[arm] else "" for arm in columns[1]]
    return [*row, _same(item for item in of.values() if item)]


def _shown(arms: Iterable[str], routed: str | None) -> list[str]:
    return [arm for arm in arms if arm not in _BESIDE or arm == routed]


def _same(items: Iterable[dict[str, Any]]) -> str:
    """Of all arms together."""
    found = [item["identical"] for item in items]
    if any(item["value"] is False for item in found):
        differing = sum(item["differing"] or 0 for item in found)
        return f"no ({differing} of {sum(item['compared'] for item in found)})"
    return "yes" if found and all(item["value"] for item in found) else ""


def _ratios_table(found: dict[str, Any]) -> str:
    settings = [name for name, item in found["settings"].items() if item["ratios"]]
    pairs = dict.fromkeys(pair for name in settings for pair in found["settings"][name]["ratios"])
    rows = []
    for pair in sorted(pairs, key=lambda pair: _place(pair, found)):
        if _place(pair, found)[0] < _UNSHOWN:
            rows.append([pair.replace("/", " / "), *(_ratio(found, name, pair) for name in settings)])
    return table(["arm / arm", *(words.setting_title(name) for name in settings)], rows) if rows else ""


def _place(pair: str, found: dict[str, Any]) -> tuple[int, int]:
    """All arms over the baseline, then the routed one over the others; what is not shown comes last."""
    arm, base = pair.rsplit("/", 1)
    order = found["arms"].index(arm)
    if base == found["baseline"]:
        return 0, order
    return (1 + BASES.index(base), order) if arm == _ROUTED else (_UNSHOWN, order)


def _ratio(found: dict[str, Any], setting: str, pair: str) -> str:
    item = found["settings"][setting]["ratios"].get(pair)
    return words.with_interval(item["all"]["server_tokens_per_second"]) if item else ""


def _order(metadata: dict[str, Any]) -> str:
    """groups: arms whose servers were up together, where not all were."""
    groups = metadata.get("groups")
    if not isinstance(groups, list) or len(groups) < 2:
        return "the arms alternating"
    together = (" and ".join(clean(str(name)) for name in group) for group in groups if isinstance(group, list))
    return f"alternating only among arms whose servers were up together ({'; '.join(together)})"


def _facts(metadata: dict[str, Any]) -> str:
    workload = metadata.get("workload") if isinstance(metadata.get("workload"), dict) else {}
    facts = [f"Target: {words.target(metadata)}." if words.target(metadata) else "", _sentence(words.note(metadata))]
    if workload.get("num_prompts") is not None:
        facts.append(
            f"{workload['num_prompts']} prompts ({clean(str(workload.get('name', '')))}),"
            f" {metadata.get('repetitions')} repetitions, {_order(metadata)}."
        )
    facts.append(f"Machine: {words.machine(metadata)}." if words.machine(metadata) else "")
    text = escaped(" ".join(fact for fact in facts if fact))
    made = words.command(metadata)
    return f"{text}\n\n    {' '.join(made.split())}" if made else text


def _sentence(text: str) -> str:
    return text if not text or text.endswith(".") else f"{text}."


def _verdict(why_not: Sequence[str]) -> str:
    if not why_not:
        return "Citable: clean commit, SGLang itself, enough repetitions, output checked identical."
    return "**Not citable:**\n\n" + "\n".join(f"- {escaped(reason)}" for reason in why_not)


def _definitions(found: dict[str, Any]) -> str:
    lines = [f"- {DEFINITIONS[name].title}: {DEFINITIONS[name].meaning}" for name in _DEFINED]
    baseline = escaped(found["baseline"])
    return "\n".join(
        [*lines, f"- the baseline is `{baseline}`; tokens/s of a task are of one user, of the last row of the server"]
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(escaped(cell) for cell in line) + " |" for line in lines)


def escaped(text: str) -> str:
    """One line that Markdown shows as it is; ** is ours."""
    line = " ".join(clean(text).split())
    for mark in ("\\", "|", "<", ">", "`", "[", "]"):
        line = line.replace(mark, {"<": "&lt;", ">": "&gt;"}.get(mark, "\\" + mark))
    return line
