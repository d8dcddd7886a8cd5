"""answers.jsonl: what the target said, as rows of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sglang_hetero_spec.build.align.errors import AlignError
from sglang_hetero_spec.build.regenerate.answers import from_line
from sglang_hetero_spec.build.split import heldout_ids, order

NOT_SHARED = -1


@dataclass(frozen=True)
class Row:
    """One prompt and the target's answer to it, in the ids of the drafter's tokenizer. `text` is the answer's.

    said: the row that this one was made of, in the target's ids, where the drafter's are others; None: this one.
    places, labels: where the drafter reads the target's tokens one by one: for each token of the answer that was said,
    the position in the sequence that predicts it, and its number among the tokens that both have (NOT_SHARED for
    others). None: every token of `answer` is predicted by the position before it.
    """

    id: str
    task: str | None
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    text: str = ""
    finish_reason: str | None = None
    said: Row | None = None
    places: tuple[int, ...] | None = None
    labels: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    @property
    def scored(self) -> tuple[Sequence[int], tuple[int, ...]]:
        """Positions that predict something, and what."""
        if self.places is None or self.labels is None:
            return range(len(self.prompt) - 1, len(self) - 1), self.answer
        return self.places, self.labels

    @property
    def by_target(self) -> Row:
        """In the target's ids."""
        return self.said or self

    def cut(self, most: int) -> Row:
        """At most so many tokens."""
        if len(self) <= most:
            return self
        row = replace(self, answer=self.answer[: most - len(self.prompt)])
        if self.places is None or self.labels is None or self.said is None:
            return row
        kept = sum(place < most for place in self.places)
        said = replace(self.said, answer=self.said.answer[:kept])
        return replace(row, said=said, places=self.places[:kept], labels=self.labels[:kept])


@dataclass(frozen=True)
class Split:
    """`train` to learn from, `dev` to stop by, `test` for the figures in align.json; no prompt is in two of them."""

    train: tuple[Row, ...]
    dev: tuple[Row, ...]
    test: tuple[Row, ...]


def read_answers(path: Path) -> tuple[Row, ...]:
    """All answers with a prompt and at least one token; the first one where an id comes twice.

    A last line without its line end is what a kill left of it, and is dropped. AlignError or RegenerateError in one
    sentence where the file or a line cannot be used.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AlignError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    rows: dict[str, Row] = {}
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        if line.strip():
            said = from_line(line, f"{path}, line {number}")
            if said.prompt_ids and said.output_ids:
                row = Row(said.id, said.task, said.prompt_ids, said.output_ids, said.text, said.finish_reason)
                rows.setdefault(row.id, row)
    return tuple(rows.values())


def relabel(rows: Iterable[Row], tasks: Mapping[str, str | None]) -> tuple[Row, ...]:
    """Tasks by prompt id, from `partition`; rows that it does not name are left out."""
    return tuple(replace(row, task=tasks[row.id]) for row in rows if row.id in tasks)


def of_task(rows: Sequence[Row], task: str | None, where: Path) -> tuple[Row, ...]:
    """The rows of one task, or all for None."""
    if task is None:
        return tuple(rows)
    chosen = tuple(row for row in rows if row.task == task)
    if not chosen:
        known = ", ".join(sorted({row.task for row in rows if row.task is not None})) or "none"
        raise AlignError(f"{where} has no answer of the task `{task}`; the tasks in it are {known}.")
    return chosen


def fit_context(rows: Iterable[Row], most: int) -> tuple[Row, ...]:
    """Long answers are cut at the context; rows whose prompt fills it are left out."""
    return tuple(row.cut(most) for row in rows if len(row.prompt) < most)


def by_task(rows: Sequence[Row]) -> dict[str | None, list[Row]]:
    """Rows of each task in their order; tasks sorted, outliers (None) last."""
    tasks = sorted({row.task for row in rows}, key=lambda task: (task is None, task or ""))
    return {task: [row for row in rows if row.task == task] for task in tasks}


def split_rows(rows: Sequence[Row], share: float, most: int) -> Split:
    """Held-out rows of every task (of outliers too), as a build chooses them: the same for a task's own drafter and
    the general one. Every other one of them goes to `dev`."""
    chosen = heldout_ids({row.id: row.task for row in rows}, share, most)
    return split_given(rows, [row for row in rows if row.id in chosen])


def split_given(rows: Sequence[Row], heldout: Sequence[Row]) -> Split:
    """The same with held-out rows from a file of their own."""
    ids = ([row.id for row in mine] for mine in by_task(heldout).values())
    places = {id: place for mine in ids for place, id in enumerate(sorted(mine, key=order))}
    return _parted([*(row for row in rows if row.id not in places), *heldout], places)


def _parted(rows: Sequence[Row], heldout: Mapping[str, int]) -> Split:
    train = tuple(row for row in rows if row.id not in heldout)
    dev = tuple(row for row in rows if heldout.get(row.id, 1) % 2 == 0)
    # With a single held-out row there is no other one to report on.
    test = tuple(row for row in rows if heldout.get(row.id, 0) % 2 == 1) or dev
    if not train or not dev:
        raise AlignError(
            f"{len(rows)} answers are too few: a drafter needs at least one to learn from and one held out; give more."
        )
    return Split(train, dev, test)
