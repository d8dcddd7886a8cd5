"""Which kind of drafter serves which task, and why: what every kind did on it when the pool was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.build.profile.model import Candidate, SpeedModel
from sglang_hetero_spec.build.profile.pooled import pooled
from sglang_hetero_spec.build.profile.records import NONE, ProfileRecord, Settings, read_profile
from sglang_hetero_spec.pool import DrafterSpec, Pool

if TYPE_CHECKING:
    from rich.table import Table

PROFILE_NAME = "profile.jsonl"


@dataclass(frozen=True)
class Figure:
    """The quickest drafter of one kind on one task. tokens_per_second: of the whole batch, where verifying costs what
    it did on average."""

    drafter: str
    accept_length: float
    tokens_per_second: float


@dataclass(frozen=True)
class Reason:
    """Why `drafter` serves `task`: the figure of every kind, by its name, where it was measured."""

    task: str
    drafter: str
    kind: str
    of_kind: dict[str, Figure]

    def as_dict(self) -> dict[str, Any]:
        figures = {kind: vars(figure) for kind, figure in self.of_kind.items()}
        return {"task": self.task, "drafter": self.drafter, "kind": self.kind, "measured": figures}


def reasons(pool: Pool) -> tuple[Reason, ...]:
    """From the profile in the pool's folder; none where there is no profile."""
    path = pool.root / PROFILE_NAME
    if not path.is_file():
        return ()
    records = pooled(read_profile(path))
    return tuple(_reason(pool, task.id, task.drafter, records) for task in pool.tasks)


def _reason(pool: Pool, task: str, drafter: str, records: Sequence[ProfileRecord]) -> Reason:
    model = SpeedModel(records)
    figures: dict[str, list[Figure]] = {}
    for spec in pool.drafters:
        figure = _figure(model, spec, task)
        if figure is not None:
            figures.setdefault(spec.kind, []).append(figure)
    # Of its own kind the one that serves, were there a quicker one.
    best = {
        kind: max(found, key=lambda figure: (figure.drafter == drafter, figure.tokens_per_second))
        for kind, found in figures.items()
    }
    return Reason(task, drafter, pool.drafter(drafter).kind, best)


def _figure(model: SpeedModel, spec: DrafterSpec, task: str) -> Figure | None:
    name = NONE if spec.kind == NONE else spec.name
    candidate = Candidate(name, Settings(spec.num_steps, spec.topk, spec.num_draft_tokens))
    cell = model.cell(candidate, task, model.default_concurrency())
    return None if cell is None else Figure(spec.name, cell.accept_length, cell.tokens_per_second)


def why_table(found: Sequence[Reason], names: dict[str, str]) -> Table:
    """names: of the tasks, by id."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    kinds = sorted({kind for reason in found for kind in reason.of_kind}, key=lambda kind: (kind == NONE, kind))
    title = "Which kind serves which task: tokens/s (accept length) of the best of each kind when the pool was made"
    table = Table("task", "drafter", "kind", *kinds, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for reason in found:
        cells = [_cell(reason.of_kind.get(kind), kind == reason.kind) for kind in kinds]
        table.add_row(escape(names.get(reason.task, reason.task)), escape(reason.drafter), reason.kind, *cells)
    return table


def _cell(figure: Figure | None, is_chosen: bool) -> str:
    if figure is None:
        return "-"
    text = f"{figure.tokens_per_second:.1f} ({figure.accept_length:.2f})"
    return f"[bold]{text}[/]" if is_chosen else text
