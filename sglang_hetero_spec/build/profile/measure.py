"""`profile`: every candidate drafter on every task, on held-out prompts, in one real server.

Where the seconds of a record come from: `seconds` is the client's wall clock over the whole pass. Of it the worker
says what its batch steps took, `draft_seconds` for proposing and `verify_seconds` for the rest of each step (split,
merge, the target's forward, accept, commit), on the host's clock. What is left (prefill, scheduling, tokens to text,
HTTP) is `seconds - draft_seconds - verify_seconds`. Where SGLang overlaps its scheduler with a GPU the host's clock
sees only the launches, and more is left.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sglang_hetero_spec.build.locks import directory_lock
from sglang_hetero_spec.build.profile.bench import Request
from sglang_hetero_spec.build.profile.candidates import NOBODY, Candidate, LeftOut, find_candidates
from sglang_hetero_spec.build.profile.checked import check, write_pool
from sglang_hetero_spec.build.profile.engine import (
    CandidateFailed,
    EngineSettings,
    Runner,
    check_flags,
    context_flag,
    served,
)
from sglang_hetero_spec.build.profile.exits import by_confidence
from sglang_hetero_spec.build.profile.journal import Journal, Plan
from sglang_hetero_spec.build.profile.records import Key, ProfileError, ProfileRecord, Settings
from sglang_hetero_spec.build.profile.served import write_served
from sglang_hetero_spec.build.profile.text_shape import fitted
from sglang_hetero_spec.build.profile.workload import Workload, choose
from sglang_hetero_spec.build.prompts import Prompt, read_prompts
from sglang_hetero_spec.build.regenerate import target as targets
from sglang_hetero_spec.commands.progress import Reporter
from sglang_hetero_spec.vocab.token_weights import ANSWERS

WARM_UP_TOKENS = 24


@dataclass(frozen=True)
class ProfileOptions:
    """concurrency: requests in flight, each measured. num_prompts: of each task. shapes: of plain checkpoints.

    passes: how often each is measured. flags: SGLang's own, for the server.
    """

    concurrency: tuple[int, ...] = (1, 4, 16)
    num_prompts: int = 16
    max_new_tokens: int = 128
    shapes: tuple[Settings, ...] = (Settings(5, 1, 6),)
    passes: int = 2
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profiled:
    """records: a line for each pass, as in `out`. kept: passes that an earlier, interrupted run had measured."""

    out: Path
    records: tuple[ProfileRecord, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    kept: int
    seconds: float


DEFAULTS = ProfileOptions()

Start = Callable[[Path, EngineSettings], AbstractContextManager[Runner]]


def profile(
    target: str | Path,
    candidates: Sequence[str],
    prompts: str | Path | Sequence[Prompt],
    out: str | Path,
    options: ProfileOptions = DEFAULTS,
    *,
    answers: Path | None = None,
    reporter: Reporter | None = None,
    start: Start = served,
) -> Profiled:
    """Measure `candidates` (see `find_candidates`) and `none` on each task of `prompts`; write profile.jsonl to `out`.

    answers: of the target, by which `vocab: auto` is chosen; without them it goes by the vocabulary alone.
    Interrupted at any moment, the same call goes on. A candidate that cannot be served is left out and named, the
    rest goes on. HeteroError (bad input) or ServingError (the server failed; what was measured is kept).
    """
    began = time.monotonic()
    target, out = str(target), Path(out)
    if out.is_dir():
        raise ProfileError(f"--out {out} is a folder; give the file to write, such as {out / 'profile.jsonl'}.")
    check_flags(options.flags)
    targets.check_target(target, with_weights=True)
    found = find_candidates(candidates, options.shapes)
    workload = load_workload(target, prompts, options)
    with (
        directory_lock(out.parent, out.name, f"hetero-spec profile --out {out}"),
        contextlib.nullcontext(reporter) if reporter else Reporter() as shown,
        tempfile.TemporaryDirectory(prefix="hetero-spec-profile-") as folder,
    ):
        if answers is not None:
            link = Path(folder) / ANSWERS
            link.parent.mkdir(parents=True)
            link.symlink_to(answers.resolve())
        good, left_out = check(found, target, Path(folder))
        texts = [ids for prompts in workload.prompts.values() for ids in prompts]
        good = [fitted(candidate, target, texts) for candidate in good]
        run = _Run(target, workload, options, shown, out, Path(folder), start)
        for item in left_out:
            run.leave_out(item)
        journal = Journal(out, _plan(target, workload, options, good))
        kept = journal.num_passes
        if kept:
            shown.line(f"{kept} passes were measured before and are kept.")
        keys = run.measure(good, journal)
        late = run.by_confidence(good, journal, texts, answers)
        if late:
            journal = Journal(out, _plan(target, workload, options, [*good, *late]))
            keys = list(dict.fromkeys([*keys, *run.measure(late, journal)]))
        write_served(out, [*good, *late])
        if journal.num_passes == 0:
            raise ProfileError(f"Nothing was measured, no task is left: {' '.join(run.notes)}")
        records = journal.finish(keys, options.passes)
        notes = (*workload.notes, *run.notes)
        return Profiled(out, records, tuple(run.left_out), notes, kept, time.monotonic() - began)


def load_workload(target: str, prompts: str | Path | Sequence[Prompt], options: ProfileOptions) -> Workload:
    """The prompts of each task as the target's token ids. HeteroError for prompts that cannot be used."""
    all_prompts = read_prompts(prompts) if isinstance(prompts, (str, Path)) else tuple(prompts)
    tasked = [prompt for prompt in all_prompts if prompt.task is not None]
    encoded = targets.encode(targets.load_tokenizer(target, trust="--trust-remote-code" in options.flags), tasked)
    context = context_flag(options.flags) or targets.context_of(target)
    room = None if context is None else context - options.max_new_tokens - 1
    if room is not None and room < 1:
        raise ProfileError(
            f"--max-new-tokens {options.max_new_tokens} leaves no room for a prompt in the target's context of"
            f" {context} tokens; give less."
        )
    return choose(tasked, encoded, num_prompts=options.num_prompts, room=room)


class _Cell(NamedTuple):
    """One pass to measure."""

    entry: str
    key: Key
    number: int
    vocab: str


class _Run:
    """One call of `profile` while it goes on."""

    def __init__(
        self,
        target: str,
        workload: Workload,
        options: ProfileOptions,
        reporter: Reporter,
        out: Path,
        folder: Path,
        start: Start,
    ) -> None:
        self._workload, self._options, self._reporter, self._start = workload, options, reporter, start
        self._folder = folder
        self._settings = EngineSettings(
            target=target,
            longest=workload.longest + options.max_new_tokens,
            busiest=max(options.concurrency),
            flags=options.flags,
            log=server_log(out).absolute(),
        )
        self.left_out: list[LeftOut] = []
        self.notes: list[str] = []

    def leave_out(self, item: LeftOut) -> None:
        self.left_out.append(item)
        self._reporter.line(f"Left out: `{item.candidate}`: {item.reason}")

    def measure(self, candidates: Sequence[Candidate], journal: Journal) -> list[Key]:
        """All passes that the journal lacks; the keys of what was asked for and could be measured."""
        entries = name_entries(candidates)
        cells = self._cells(entries, journal)
        while cells:
            if len(entries) == 1:
                raise ProfileError(self._nothing_left())
            try:
                write_pool(self._folder, entries, self._settings.target)
                self._reporter.line(f"Starting SGLang with {len(entries) - 1} drafters, a minute or two ...")
                with self._start(self._folder, self._settings) as runner:
                    self._warm_up(runner, entries)
                    self._passes(runner, cells, journal)
                break
            except CandidateFailed as failure:
                self.leave_out(LeftOut(entries.pop(failure.entry), str(failure)))
                cells = self._cells(entries, journal)
        if len(entries) == 1:
            raise ProfileError(self._nothing_left())
        return [self._key(candidate, *place) for candidate in entries.values() for place in self._places()]

    def by_confidence(
        self, measured: Sequence[Candidate], journal: Journal, texts: Sequence[Sequence[int]], answers: Path | None
    ) -> list[Candidate]:
        """Sorted drafters with thresholds for this target, by what their fixed exits cost."""
        alive = [candidate for candidate in measured if all(candidate != item.candidate for item in self.left_out)]
        if answers is None:
            if any(candidate.kind == "sorted" and candidate.takes_shapes for candidate in alive):
                self.notes.append(
                    "Sorted drafters are measured at fixed exits only: no answers of the target are given."
                )
            return []
        found = by_confidence(alive, journal.records, texts, answers, self._options.concurrency)
        for item in found:
            thresholds = ", ".join(map(str, item.chosen.thresholds))
            best = max(item.chosen.fixed)
            self._reporter.line(
                f"`{item.candidate.drafter}`: thresholds {thresholds}, expected to be"
                f" {item.chosen.tokens_per_second / best - 1:+.1%} beside the best fixed exit."
            )
        return [item.candidate for item in found]

    def _nothing_left(self) -> str:
        first = self.left_out[0]
        return (
            f"No candidate can be served ({len(self.left_out)} left out), so there is nothing to profile; of"
            f" `{first.candidate}`: {first.reason}"
        )

    def _places(self) -> list[tuple[str, int]]:
        return [(task, concurrency) for task in self._workload.tasks for concurrency in self._options.concurrency]

    def _key(self, candidate: Candidate, task: str, concurrency: int) -> Key:
        return Key(candidate.drafter, task, candidate.settings, concurrency)

    def _cells(self, entries: dict[str, Candidate], journal: Journal) -> list[_Cell]:
        """Candidates alternate, there and back again, so that a slow minute of the machine hits all alike."""
        cells = []
        for number in range(self._options.passes):
            for place in self._places():
                order = list(entries.items())
                for entry, candidate in order if number % 2 == 0 else reversed(order):
                    key = self._key(candidate, *place)
                    if number >= journal.passes_of(key):
                        cells.append(_Cell(entry, key, number, candidate.vocab))
        return cells

    def _warm_up(self, runner: Runner, entries: dict[str, Candidate]) -> None:
        """The first requests of a server pay for what is built on first use; nobody measures them."""
        tokens = min(self._options.max_new_tokens, WARM_UP_TOKENS)
        for concurrency in sorted(set(self._options.concurrency)):
            for entry in entries:
                prompts = self._workload.batch(self._workload.tasks[0], concurrency)[:concurrency]
                runner.run([Request(ids, {"drafter": entry}, tokens) for ids in prompts], concurrency)

    def _passes(self, runner: Runner, cells: Sequence[_Cell], journal: Journal) -> None:
        unmeasured: set[str] = set()
        with self._reporter.steps("Measuring", len(cells)) as steps:
            for cell in cells:
                key = cell.key
                if key.task not in unmeasured:
                    record = self._one_pass(runner, cell)
                    if record is None:
                        unmeasured.add(key.task)
                        self.notes.append(f"Task `{key.task}` is not measured: its answers end at their first token.")
                    else:
                        journal.append(record)
                steps.advance(f"pass {cell.number + 1}: {key.drafter}, {key.task}, {key.concurrency} in flight")

    def _one_pass(self, runner: Runner, cell: _Cell) -> ProfileRecord | None:
        key = cell.key
        requests = [
            Request(ids, {"drafter": cell.entry}, self._options.max_new_tokens)
            for ids in self._workload.batch(key.task, key.concurrency)
        ]
        one = runner.run(requests, key.concurrency)
        return one.record(key.drafter, key.task, key.settings, key.concurrency, cell.vocab)


def server_log(out: Path) -> Path:
    """What the server says, beside `out`; there after a run only if it failed."""
    return out.with_name(f"{out.name}.server.log")


def name_entries(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """A pool entry for each candidate and for `none`, which comes first; names are unique and begin with a number."""
    named = {f"{number}.{candidate.drafter}"[:64]: candidate for number, candidate in enumerate(candidates, start=1)}
    return {NOBODY.drafter: NOBODY, **named}


def _plan(target: str, workload: Workload, options: ProfileOptions, candidates: Sequence[Candidate]) -> Plan:
    return Plan(
        target=targets.fingerprint(target),
        prompts=workload.sha256,
        max_new_tokens=options.max_new_tokens,
        flags=options.flags,
        drafters={candidate.drafter: _fingerprint(candidate) for candidate in candidates},
    )


def _fingerprint(candidate: Candidate) -> str:
    files = "" if candidate.path is None else targets.fingerprint(str(candidate.path))
    files += "" if candidate.base is None else f" on {_fingerprint(candidate.base)}"
    return f"{files} {json.dumps(dict(candidate.extra))}" if candidate.extra else files
