"""Which answers teach and which are held out: one rule for a whole build and for `hetero-spec align` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from sglang_hetero_spec.build.prompts import Prompt, write_prompts
from sglang_hetero_spec.build.regenerate.answers import read_answers, to_line
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_whole

LEAST_HELDOUT, MOST_HELDOUT = 4, 256


def heldout_ids(task_of: Mapping[str, str | None], share: float, most: int = MOST_HELDOUT) -> frozenset[str]:
    """A share of each task's prompts, the first ones in `order`: from 4 to `most` of them, and never more than half."""
    ids: dict[str | None, list[str]] = {}
    for id, task in task_of.items():
        ids.setdefault(task, []).append(id)
    chosen: set[str] = set()
    for mine in ids.values():
        wanted = min(most, max(LEAST_HELDOUT, round(share * len(mine))))
        chosen.update(sorted(mine, key=order)[: min(wanted, len(mine) // 2)])
    return frozenset(chosen)


def order(id: str) -> str:
    """What prompts are sorted by: nothing of the log, and no other prompt, decides on which side one is."""
    return sha256(id.encode()).hexdigest()


def write_split(folder: Path, prompts: Sequence[Prompt], answers: Path, share: float) -> None:
    """train.jsonl and heldout.jsonl (answers with the tasks of `prompts`) and prompts.jsonl (the held-out prompts).

    Outliers, which have no task, teach the general drafter only.
    """
    tasks = {prompt.id: prompt.task for prompt in prompts}
    known = [replace(answer, task=tasks[answer.id]) for answer in read_answers(answers) if answer.id in tasks]
    heldout = heldout_ids({answer.id: answer.task for answer in known if answer.task is not None}, share)
    parts = {"train.jsonl": False, "heldout.jsonl": True}
    for name, is_heldout in parts.items():
        lines = (to_line(answer) for answer in known if (answer.id in heldout) == is_heldout)
        write_whole(folder / name, lines, HeteroError)
    write_prompts(folder / "prompts.jsonl", [prompt for prompt in prompts if prompt.id in heldout])
