"""Everything a report is made from, read once. Only the tasks must be there; what is missing is None or empty."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sglang_hetero_spec.build.assign.result import Assignment, read_assignment
from sglang_hetero_spec.build.profile.records import ProfileRecord, read_profile
from sglang_hetero_spec.build.prompts import PROMPTS_NAME, REJECTS_NAME, Prompt, Reject, read_prompts
from sglang_hetero_spec.build.report.errors import ReportError
from sglang_hetero_spec.build.report.measured import MEASURED_NAME, MeasuredRun, read_measured
from sglang_hetero_spec.build.report.sources import (
    ALIGN,
    CURVE,
    Learned,
    PartitionSummary,
    Task,
    Threshold,
    read_learned,
    read_partition,
    read_tasks,
    read_threshold,
)
from sglang_hetero_spec.build.report.strict import Known, Strict, read_json, read_jsonl
from sglang_hetero_spec.pool.errors import listed

# Where the steps of a build may leave their files; the folder itself comes first.
STEPS = (
    "merge",
    "partition",
    "regenerate",
    "align",
    "drafters",
    "profile",
    "assign",
    "router",
    "fit-router",
    "bench",
    "pool",
)
TEXTS = ("command.txt", "run.yaml")
_CHUNK = 1 << 20
T = TypeVar("T")


class RejectedLine(Strict):
    line: int
    reason: str
    raw: str


class RejectedPrompt(Strict):
    id: str
    reason: str
    is_final: bool


class _Calibration(Known):
    cross_validated_accuracy: float | None = None
    wrapped_accuracy: float | None = None
    ece: float | None = None
    num_prompts: int = 0


class RouterFigures(Known):
    """What is shown of router.json."""

    calibration: _Calibration


@dataclass(frozen=True)
class InputFile:
    """A file that was read; `name` is relative to the folder."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Inputs:
    """The folder's content. `texts` and `versions` are how it was made, as written there."""

    folder: Path
    tasks: tuple[Task, ...]
    prompts: tuple[Prompt, ...] | None = None
    partition: PartitionSummary | None = None
    rejects: tuple[Reject, ...] | None = None
    unanswered: tuple[RejectedPrompt, ...] | None = None
    records: tuple[ProfileRecord, ...] | None = None
    assignment: Assignment | None = None
    threshold: Threshold | None = None
    router: RouterFigures | None = None
    learned: tuple[Learned, ...] = ()
    measured: tuple[MeasuredRun, ...] | None = None
    texts: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: tuple[InputFile, ...] = ()

    def title(self, task: str) -> str:
        """What a task is called."""
        return next((item.title for item in self.tasks if item.id == task), task)


def read_inputs(folder: str | Path) -> Inputs:
    """Read a build's folder; HeteroError in one sentence for a file that is there and cannot be used."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ReportError(f"{folder} is not a folder; give the folder of a build.")
    reader = _Reader(folder)
    tasks = reader.read("tasks.json", read_tasks)
    if tasks is None:
        raise ReportError(f"{folder} has no tasks.json; run `hetero-spec partition` first, or give a build's folder.")
    found = Inputs(
        folder=folder,
        tasks=tasks,
        prompts=reader.read(PROMPTS_NAME, read_prompts),
        partition=reader.read("partition.json", read_partition),
        rejects=reader.read(REJECTS_NAME, _read_rejects),
        unanswered=reader.read("answers.rejects.jsonl", _read_unanswered),
        records=reader.read("profile.jsonl", read_profile),
        assignment=reader.read("assignment.json", read_assignment),
        threshold=reader.read("threshold.json", read_threshold),
        router=reader.read("router.json", _read_router),
        learned=reader.learned(),
        measured=reader.read(MEASURED_NAME, read_measured),
        texts={name: text for name in TEXTS if (text := reader.read(name, _read_text)) is not None},
        versions=reader.read("versions.json", _read_versions) or {},
        files=tuple(reader.files),
    )
    _check_names(found)
    return found


class _Reader:
    """Finds a file in the folder or in one of the steps' folders, reads it, and notes its hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[InputFile] = []

    def read(self, name: str, parse: Callable[[Path], T]) -> T | None:
        for place in (self.folder, *(self.folder / step for step in STEPS)):
            if (place / name).is_file():
                return self._parsed(place / name, parse)
        return None

    def learned(self) -> tuple[Learned, ...]:
        """One for each folder, up to two below, that an alignment wrote."""
        found = {path.parent for name in (CURVE, ALIGN) for depth in ("*", "*/*") for path in self._glob(depth, name)}
        for folder in sorted(found):
            for name in (CURVE, ALIGN):
                if (folder / name).is_file():
                    self._note(folder / name)
        return tuple(read_learned(folder) for folder in sorted(found))

    def _glob(self, depth: str, name: str) -> list[Path]:
        paths = self.folder.glob(f"{depth}/{name}")
        return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(self.folder).parts)]

    def _parsed(self, path: Path, parse: Callable[[Path], T]) -> T:
        self._note(path)
        return parse(path)

    def _note(self, path: Path) -> None:
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
        except OSError as error:
            raise ReportError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None
        self.files.append(InputFile(path.relative_to(self.folder).as_posix(), size, digest.hexdigest()))


def _read_rejects(path: Path) -> tuple[Reject, ...]:
    lines = read_jsonl(path, RejectedLine, "run `hetero-spec partition` again")
    return tuple(Reject(line.line, line.reason, line.raw) for line in lines)


def _read_unanswered(path: Path) -> tuple[RejectedPrompt, ...]:
    return read_jsonl(path, RejectedPrompt, "run `hetero-spec regenerate` again")


def _read_router(path: Path) -> RouterFigures:
    found: RouterFigures = read_json(path, RouterFigures, "run `hetero-spec fit-router` again")
    return found


def _read_versions(path: Path) -> dict[str, str]:
    found: dict[str, str] = read_json(path, dict[str, str], "write one object of names and versions")
    return found


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _check_names(inputs: Inputs) -> None:
    """Files of different builds do not make one report."""
    known = {task.id for task in inputs.tasks}
    for name, used in _used_tasks(inputs):
        unknown = sorted(set(used) - known)
        if unknown:
            raise ReportError(
                f"{inputs.folder}: {name} names the task `{unknown[0]}`, which tasks.json does not have"
                f" ({listed(sorted(known))}); put files of one build together."
            )


def _used_tasks(inputs: Inputs) -> Iterable[tuple[str, list[Any]]]:
    yield PROMPTS_NAME, [prompt.task for prompt in inputs.prompts or () if prompt.task is not None]
    yield "profile.jsonl", [record.task for record in inputs.records or ()]
    if inputs.assignment is not None:
        yield "assignment.json", [task.task for task in inputs.assignment.tasks]
    if inputs.threshold is not None:
        yield "threshold.json", [name for item in inputs.threshold.confusion for name in (item.task, item.predicted)]
    yield MEASURED_NAME, [run.task for run in inputs.measured or () if run.task is not None]
