"""Prompts of a benchmark: Spec-Bench's file, any log that `build` reads, or the demo's held-out ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.build.prompts import LogError, Prompt, plain_prompt, read_log, read_prompts
from sglang_hetero_spec.demo.shipped import Shipped

_SPEC_BENCH = {"question_id", "category", "turns"}
_OURS = {"id", "task", "label"}


@dataclass(frozen=True)
class Source:
    """prompts: `task` is set where the file says one. notes: what was left out, one sentence each."""

    name: str
    prompts: tuple[Prompt, ...]
    notes: tuple[str, ...] = ()


def demo_source(shipped: Shipped) -> Source:
    """Held out: the pool was not made from them."""
    return Source("demo", tuple(plain_prompt(item.text, item.task, item.task) for item in shipped.prompts()))


def file_source(path: str | Path) -> Source:
    """LogError, in one sentence, for a file that cannot be read, is binary or empty, or has not one usable line."""
    path = Path(path)
    first = _first_object(path)
    if first.keys() >= _SPEC_BENCH:
        return Source(path.name, _spec_bench(path))
    if first.keys() >= _OURS:
        return Source(path.name, read_prompts(path))
    log = read_log(path)
    prompts = tuple(plain_prompt(p.text, p.label, p.label) if p.messages is None else _tasked(p) for p in log.prompts)
    notes = [f"{len(log.rejects)} lines of {path} hold no prompt, such as line {one.line}: {one.reason}."
             for one in log.rejects[:1]]  # fmt: skip
    return Source(path.name, prompts, tuple(notes))


def _tasked(prompt: Prompt) -> Prompt:
    return Prompt(prompt.id, prompt.text, prompt.messages, prompt.label, prompt.label)


def _first_object(path: Path) -> dict[str, object]:
    """The first line as JSON; {} where it is none: `read_log` says what is wrong with the file."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.readline(1 << 20))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _spec_bench(path: Path) -> tuple[Prompt, ...]:
    """First turns; the category is the task."""
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            row = json.loads(line)
            prompts.append(plain_prompt(str(row["turns"][0]), row["category"], row["category"]))
        except (ValueError, KeyError, IndexError, TypeError):
            raise LogError(
                f"{path}, line {number}, is not a question of Spec-Bench; download the file again, or remove the line."
            ) from None
    return tuple(prompts)
