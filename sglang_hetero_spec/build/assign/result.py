"""assignment.json: strict on reading, whole or not at all when written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sglang_hetero_spec import files
from sglang_hetero_spec.build.assign.problem import AssignError
from sglang_hetero_spec.build.profile.model import Candidate
from sglang_hetero_spec.build.profile.records import NONE, Settings
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.schema import Name
from sglang_hetero_spec.pool.strict_json import parse_object, read_text

FORMAT = "sglang_hetero_spec.assignment"
SCHEMA_VERSION = 1
_AGAIN = "run `hetero-spec assign` again"

Speed = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Shaped(_Strict):
    """A drafter with its settings."""

    drafter: Name
    num_steps: Annotated[int, Field(ge=0)]
    topk: Annotated[int, Field(ge=1)]
    num_draft_tokens: Annotated[int, Field(ge=1)]

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.drafter, Settings(self.num_steps, self.topk, self.num_draft_tokens))


class Expected(_Strict):
    """Expected tokens per second of the whole batch: as assigned, without speculation, with the best single drafter.

    The gains are ratios: 1.25 is a quarter faster.
    """

    tokens_per_second: Speed
    none_tokens_per_second: Speed
    best_single_tokens_per_second: Speed
    gain_over_none: Speed
    gain_over_best_single: Speed

    @classmethod
    def of(cls, seconds: float, none_seconds: float, single_seconds: float) -> Expected:
        """From seconds per token."""
        return cls(
            tokens_per_second=1 / seconds,
            none_tokens_per_second=1 / none_seconds,
            best_single_tokens_per_second=1 / single_seconds,
            gain_over_none=none_seconds / seconds,
            gain_over_best_single=single_seconds / seconds,
        )


class BudgetSpec(_Strict):
    """What was allowed; null: no limit."""

    max_drafters: int | None = None
    max_memory: int | None = None


class AssignedDrafter(_Shaped):
    """A drafter of the pool; `none` is always one. memory_bytes: null where memory was no matter."""

    memory_bytes: int | None = None
    tasks: tuple[Name, ...]


class AssignedTask(_Shaped):
    """A task and its drafter; `expected` is of this task alone at the concurrency."""

    task: Name
    accept_length: Speed
    expected: Expected


class BestSingle(_Shaped):
    """The one drafter that would serve the whole mix best, within the budget, whether it is in the pool or not."""

    tokens_per_second: Speed

    @classmethod
    def of(cls, candidate: Candidate, tokens_per_second: float) -> BestSingle:
        return cls(drafter=candidate.drafter, **candidate.settings._asdict(), tokens_per_second=tokens_per_second)


class Assignment(_Strict):
    """The whole file. traffic: shares of the tokens; expected: of the mix, all tasks in one batch.

    proven: no other choice has more tokens per second; else bound_tokens_per_second is what none can exceed.
    left_out: drafters (with settings) and tasks that were not measured around this concurrency.
    """

    format: Literal["sglang_hetero_spec.assignment"] = FORMAT
    schema_version: Literal[1] = SCHEMA_VERSION
    concurrency: Annotated[int, Field(ge=1)]
    traffic: dict[str, float]
    budget: BudgetSpec
    drafters: Annotated[tuple[AssignedDrafter, ...], Field(min_length=1)]
    tasks: Annotated[tuple[AssignedTask, ...], Field(min_length=1)]
    fallback_drafter: Name
    best_single: BestSingle
    expected: Expected
    bound_tokens_per_second: Speed
    proven: bool
    method: str
    left_out: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_agree(self) -> Assignment:
        drafters = {drafter.drafter: drafter for drafter in self.drafters}
        if len(drafters) < len(self.drafters):
            raise ValueError("`drafters` names one twice")
        for task in self.tasks:
            if task.drafter not in drafters or drafters[task.drafter].candidate != task.candidate:
                raise ValueError(f"the drafter of task `{task.task}` is not in `drafters` with the same settings")
        if self.fallback_drafter not in drafters:
            raise ValueError("`fallback_drafter` is not in `drafters`")
        return self

    @property
    def drafter_of_task(self) -> dict[str, str]:
        return {task.task: task.drafter for task in self.tasks}

    @property
    def fallback(self) -> Candidate:
        return next(item.candidate for item in self.drafters if item.drafter == self.fallback_drafter)

    @property
    def speculates(self) -> bool:
        """Whether any task has a drafter other than `none`."""
        return any(task.drafter != NONE for task in self.tasks)


def write_json(path: str | Path, value: dict[str, Any]) -> None:
    """Whole or not at all; AssignError if the disk refuses."""
    files.write_json(Path(path), value, AssignError)


def write_assignment(path: str | Path, assignment: Assignment) -> None:
    """Write assignment.json in one step."""
    write_json(path, assignment.model_dump(mode="json"))


def read_assignment(path: str | Path) -> Assignment:
    """Read assignment.json; AssignError says in one sentence what is wrong with it."""
    path = Path(path)
    try:
        text = read_text(path)
        parse_object(text, path)
        return Assignment.model_validate_json(text)
    except PoolError as error:
        raise AssignError(str(error)) from None
    except ValidationError as error:
        raise AssignError(_sentence(error.errors(include_url=False)[0], path)) from None


def _sentence(error: Any, path: Path) -> str:
    field = ".".join(str(part) for part in error["loc"])
    if not field:
        return f"{path} is not an assignment ({error['msg'].removeprefix('Value error, ')}); {_AGAIN}."
    if error["type"] == "missing":
        return f"{path}: `{field}` is missing; {_AGAIN}."
    if error["type"] == "extra_forbidden":
        return f"{path}: `{field}` is not a key that this version knows; remove it, or {_AGAIN}."
    reason = error["msg"]
    return f"{path}: `{field}` is {shown(error['input'])} ({reason[:1].lower()}{reason[1:]}); {_AGAIN}."
