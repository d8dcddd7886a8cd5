"""`regenerate`: every prompt once to the target, from wherever an earlier run was left."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.locks import directory_lock
from sglang_hetero_spec.build.prompts import Prompt, read_prompts
from sglang_hetero_spec.build.regenerate import rejects, target
from sglang_hetero_spec.build.regenerate.answers import Answer
from sglang_hetero_spec.build.regenerate.backend import Backend, Refused, Request
from sglang_hetero_spec.build.regenerate.engine_backend import EngineBackend, EngineSettings
from sglang_hetero_spec.build.regenerate.errors import RegenerateError, RegenerateStopped
from sglang_hetero_spec.build.regenerate.rejects import RejectedPrompt
from sglang_hetero_spec.build.regenerate.server_backend import ServerBackend, parse_urls
from sglang_hetero_spec.build.regenerate.settings import Settings, claim
from sglang_hetero_spec.build.regenerate.store import AnswerStore
from sglang_hetero_spec.commands.progress import Reporter

MAX_NEW_TOKENS = 512
BATCH = 32
_PROBE = "Two lines,\n\t3.14 of them: na\u00efve \u4f60\u597d\U0001f642"


@dataclass(frozen=True)
class Regenerated:
    """What is in answers.jsonl now. kept: answers of earlier runs among `answered`; rejects: the file, if any.

    completion_tokens: over all answers. seconds: of this run.
    """

    out: Path
    prompts: int
    answered: int
    kept: int
    rejected: int
    rejects: Path | None
    completion_tokens: int
    finish_reasons: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Options:
    """How to ask. url: running servers, comma-separated, in place of an engine of our own. batch: prompts in flight
    (at each server). flags: SGLang's, for the engine. seed: used where temperature is above 0."""

    url: str | None = None
    temperature: float = 0.0
    max_new_tokens: int = MAX_NEW_TOKENS
    batch: int = BATCH
    seed: int = 0
    flags: tuple[str, ...] = ()


BackendMaker = Callable[[Options, str, Path, int | None], Backend]


@dataclass
class _Run:
    """One call of `regenerate` while it goes on. rejected: by the number of the prompt."""

    prompts: Sequence[Prompt]
    settings: Settings
    store: AnswerStore
    reporter: Reporter
    rejected: dict[int, RejectedPrompt] = field(default_factory=dict)

    def reject(self, number: int, reason: str, is_final: bool = True) -> None:
        self.rejected[number] = RejectedPrompt(self.prompts[number].id, reason, is_final)


def regenerate(
    target_path: str | Path,
    prompts: str | Path | Sequence[Prompt],
    out: str | Path,
    options: Options = Options(),
    *,
    reporter: Reporter | None = None,
    make_backend: BackendMaker | None = None,
) -> Regenerated:
    """Have the target answer `prompts` (or those of a prompts.jsonl) and write answers.jsonl to `out`.

    Answers that `out` or its part file has already are kept, the others are asked for; a run that was killed at any
    moment is resumed by calling this again. Prompts that cannot be answered are listed in `<out>.rejects.jsonl`.
    RegenerateError for input that cannot be used, RegenerateStopped where a run broke off with what it finished kept,
    LockedError while another run writes `out`.
    """
    out = Path(out)
    read = read_prompts(prompts) if isinstance(prompts, (str, Path)) else prompts
    asked = tuple({prompt.id: prompt for prompt in read}.values())
    if not asked:
        raise RegenerateError("There are no prompts to answer; give at least one.")
    name = str(target_path)
    if options.url is not None:
        parse_urls(options.url)
    target.check_target(name, with_weights=options.url is None)
    settings = Settings(
        target=target.fingerprint(name),
        temperature=float(options.temperature),
        max_new_tokens=options.max_new_tokens,
        seed=options.seed if options.temperature > 0 else 0,
        flags=options.flags,
    )
    if out.is_dir():
        raise RegenerateError(f"--out {out} is a folder; give the file to write, such as {out / 'answers.jsonl'}.")
    with directory_lock(out.parent, out.name, f"regenerate --out {out}"), AnswerStore(out) as store:
        is_same = claim(out, settings, has_answers=len(store) > 0)
        known = rejects.read_final(out) if is_same and len(store) else {}
        _refuse_other_prompts(out, store, asked)
        with contextlib.nullcontext(reporter) if reporter else Reporter() as shown:
            run = _Run(asked, settings, store, shown)
            try:
                return _resume(run, known, name, options, make_backend or backend_for)
            except RegenerateStopped as stop:
                raise stop.with_kept(len(store), store.part if store.part.exists() else out) from None
            except KeyboardInterrupt:
                if len(store):
                    shown.line(f"{len(store)} answers are kept; the same command goes on from there")
                raise


def _resume(run: _Run, known: dict[str, str], name: str, options: Options, make_backend: BackendMaker) -> Regenerated:
    """Ask for what is missing and write the file. known: id -> reason of what need not be asked again."""
    began = time.monotonic()
    kept = sum(prompt.id in run.store for prompt in run.prompts)
    todo = []
    for number, prompt in enumerate(run.prompts):
        if prompt.id in run.store:
            continue
        if prompt.id in known:
            run.reject(number, known[prompt.id])
        else:
            todo.append(number)
    if todo:
        _ask_all(run, todo, name, options, make_backend)
    return _finish(run, kept, began)


def _refuse_other_prompts(out: Path, store: AnswerStore, prompts: Sequence[Prompt]) -> None:
    """Answers to prompts that are gone are dropped in the end: not all of them, that would be a slip."""
    if len(store) and not any(prompt.id in store for prompt in prompts):
        raise RegenerateError(
            f"{out} has {len(store)} answers, none to one of these {len(prompts)} prompts; choose another --out, or"
            " remove it."
        )


def backend_for(options: Options, target_path: str, out: Path, kv_tokens: int | None) -> Backend:
    """The backend that the options ask for, not yet started. kv_tokens: room for all that is in flight, if known."""
    if options.url is not None:
        return ServerBackend(parse_urls(options.url), options.batch)
    log = out.with_name(out.name.removesuffix(".jsonl") + ".engine.log")
    return EngineBackend(
        EngineSettings(target_path, options.flags, options.temperature > 0, options.batch, log, kv_tokens)
    )


def _ask_all(run: _Run, todo: list[int], name: str, options: Options, make_backend: BackendMaker) -> None:
    tokenizer = target.load_tokenizer(name, trust="--trust-remote-code" in options.flags)
    ids = _encode(run, todo, tokenizer)
    if not ids:
        return
    longest = max(len(one) for one in ids.values()) + options.max_new_tokens
    context = None if options.url is not None else target.context_of(name)
    kv_tokens = None if context is None else max(context, options.batch * min(context, longest)) + 8
    run.reporter.line(f"{len(ids)} prompts to answer; " + _waiting_for(options))
    with make_backend(options, name, run.store.out, kv_tokens) as backend:
        _tell(run, backend, options)
        _refuse_other_tokenizer(backend, tokenizer, name)
        requests = _requests(run, ids, options, backend)
        if requests:
            _take_answers(run, requests, ids, backend)


def _encode(run: _Run, todo: list[int], tokenizer: Any) -> dict[int, tuple[int, ...]]:
    """Token ids by number of the prompt; what cannot be encoded is rejected."""
    ids: dict[int, tuple[int, ...]] = {}
    for number, item in zip(todo, target.encode(tokenizer, [run.prompts[n] for n in todo]), strict=True):
        if isinstance(item, str):
            run.reject(number, item)
        else:
            ids[number] = item
    return ids


def _waiting_for(options: Options) -> str:
    return f"looking at {options.url}" if options.url is not None else "loading the target into SGLang"


def _refuse_other_tokenizer(backend: Backend, tokenizer: Any, name: str) -> None:
    ours = tuple(tokenizer(_PROBE).input_ids)
    for url, theirs in backend.tokens_of(_PROBE):
        if theirs != ours:
            raise RegenerateError(
                f"{url} serves a model with another tokenizer than --target {name}; give the target that it serves."
            )


def _tell(run: _Run, backend: Backend, options: Options) -> None:
    for note in backend.notes:
        run.reporter.line(note)
    if options.temperature > 0 and not backend.is_seeded:
        run.reporter.line(
            "the servers run without --enable-deterministic-inference: seeds have no effect, another run would answer"
            " otherwise"
        )
    run.reporter.line("the target is ready")


def _requests(run: _Run, ids: dict[int, tuple[int, ...]], options: Options, backend: Backend) -> list[Request]:
    requests = []
    for number, tokens in ids.items():
        why = backend.limits.why_too_long(len(tokens))
        if why is not None:
            run.reject(number, why)
            continue
        room = backend.limits.room(len(tokens), options.max_new_tokens)
        params = run.settings.params(run.prompts[number].id, room, by_processor=backend.is_seeded_by_processor)
        requests.append(Request(number, tokens, params))
    return requests


def _take_answers(run: _Run, requests: list[Request], ids: dict[int, tuple[int, ...]], backend: Backend) -> None:
    """Every outcome to disk as it comes."""
    tokens, began = 0, time.monotonic()
    with run.reporter.steps("answers", len(requests)) as steps:
        steps.resume()
        for item in backend.answers(requests):
            if isinstance(item, Refused):
                run.reject(item.number, item.reason, item.is_final)
            else:
                prompt = run.prompts[item.number]
                run.store.add(
                    Answer(prompt.id, ids[item.number], item.output_ids, item.text, item.finish_reason, prompt.task)
                )
                tokens += len(item.output_ids)
            steps.advance(f"{tokens / max(1e-9, time.monotonic() - began):.0f} tokens/s")


def _finish(run: _Run, kept: int, began: float) -> Regenerated:
    out = run.store.out
    ordered = [run.rejected[number] for number in sorted(run.rejected)]
    path = rejects.write(out, ordered)
    if not any(prompt.id in run.store for prompt in run.prompts):
        raise RegenerateError(
            f"None of the {len(run.prompts)} prompts could be answered (the first: {ordered[0].reason}); all are"
            f" listed in {path}."
        )
    if not run.store.is_finished(run.prompts):
        run.store.finish(run.prompts)
    tokens, reasons = 0, Counter[str]()
    for _, answer in AnswerStore(out).answers(run.prompts):
        tokens += len(answer.output_ids)
        reasons[answer.finish_reason] += 1
    return Regenerated(
        out=out,
        prompts=len(run.prompts),
        answered=reasons.total(),
        kept=kept,
        rejected=len(ordered),
        rejects=path,
        completion_tokens=tokens,
        finish_reasons=dict(sorted(reasons.items())),
        seconds=time.monotonic() - began,
    )
