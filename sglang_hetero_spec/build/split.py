"""Which answers teach and which are held out: one split for every drafter, for early stop and for the profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from sglang_hetero_spec.build.prompts import Prompt, write_prompts
from sglang_hetero_spec.build.regenerate.answers import Answer, read_answers, to_line

LEAST_HELDOUT, MOST_HELDOUT = 4, 256


def heldout_ids(task_of: Mapping[str, str], share: float) -> frozenset[str]:
    """A share of each task's prompts, chosen by the hash of their id: from 4 to 256 of them, at most half."""
    chosen: set[str] = set()
    for task in sorted(set(task_of.values())):
        mine = sorted((id for id, of in task_of.items() if of == task), key=lambda id: sha256(id.encode()).hexdigest())
        wanted = min(MOST_HELDOUT, max(LEAST_HELDOUT, round(share * len(mine))))
        chosen.update(mine[: min(wanted, len(mine) // 2)])
    return frozenset(chosen)


def write_split(folder: Path, prompts: Sequence[Prompt], answers: Path, share: float) -> None:
    """train.jsonl and heldout.jsonl (answers with the tasks of `prompts`) and prompts.jsonl (the held-out prompts).

    Outliers, which have no task, teach the general drafter only.
    """
    tasks = {prompt.id: prompt.task for prompt in prompts}
    known = [replace(answer, task=tasks[answer.id]) for answer in read_answers(answers) if answer.id in tasks]
    heldout = heldout_ids({answer.id: answer.task for answer in known if answer.task is not None}, share)
    _write(folder / "train.jsonl", [answer for answer in known if answer.id not in heldout])
    _write(folder / "heldout.jsonl", [answer for answer in known if answer.id in heldout])
    write_prompts(folder / "prompts.jsonl", [prompt for prompt in prompts if prompt.id in heldout])


def _write(path: Path, answers: Sequence[Answer]) -> None:
    path.write_bytes(b"".join(map(to_line, answers)))
