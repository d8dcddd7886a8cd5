"""Requests through a running HETERO server, and what they cost: counts from the answers, seconds from /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_hetero_spec.build.profile.records import ProfileError, ProfileRecord, Settings
from sglang_hetero_spec.serving.client import flush_cache, generate_all, get
from sglang_hetero_spec.serving.metrics import DRAFT_SECONDS, VERIFY_FORWARDS, VERIFY_SECONDS, samples
from sglang_hetero_spec.serving.server import Server


@dataclass(frozen=True)
class Request:
    """override: the `hetero` field of custom_params; None leaves it to the router."""

    input_ids: tuple[int, ...]
    override: dict[str, str] | None
    max_new_tokens: int

    def body(self) -> dict[str, Any]:
        params: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": self.max_new_tokens, "ignore_eos": False}
        if self.override is not None:
            params["custom_params"] = {"hetero": self.override}
        return {"input_ids": list(self.input_ids), "sampling_params": params}


@dataclass(frozen=True)
class Counts:
    """Of one request or the sum of several. histogram[k]: verify steps that found exactly k drafts right."""

    requests: int = 0
    verify_steps: int = 0
    proposed_drafts: int = 0
    histogram: tuple[int, ...] = ()
    completion_tokens: int = 0

    @classmethod
    def of_answer(cls, answer: dict[str, Any]) -> Counts:
        """From SGLang's meta_info; an answer of one token, which the prefill gave, has no verify step."""
        meta = answer["meta_info"]
        return cls(
            requests=1,
            verify_steps=meta.get("spec_verify_ct") or 0,
            proposed_drafts=meta.get("spec_num_proposed_drafts") or 0,
            histogram=tuple(meta.get("spec_correct_drafts_histogram") or ()),
            completion_tokens=meta["completion_tokens"],
        )

    @classmethod
    def sum(cls, many: Iterable[Counts]) -> Counts:
        many = list(many)
        width = max((len(one.histogram) for one in many), default=0)
        padded = [one.histogram + (0,) * (width - len(one.histogram)) for one in many]
        return cls(
            requests=sum(one.requests for one in many),
            verify_steps=sum(one.verify_steps for one in many),
            proposed_drafts=sum(one.proposed_drafts for one in many),
            histogram=tuple(map(sum, zip(*padded, strict=True))),
            completion_tokens=sum(one.completion_tokens for one in many),
        )

    def correct_by_position(self, depth: int) -> tuple[int, ...]:
        """How many verify steps found at least i + 1 drafts right, for i below depth."""
        return tuple(sum(self.histogram[place + 1 :]) for place in range(depth))


@dataclass(frozen=True)
class EngineClock:
    """The worker's counters (worker/metrics.py), since the server started."""

    draft_seconds: float
    verify_seconds: float
    verify_forwards: int

    def since(self, before: EngineClock) -> EngineClock:
        return EngineClock(
            self.draft_seconds - before.draft_seconds,
            self.verify_seconds - before.verify_seconds,
            self.verify_forwards - before.verify_forwards,
        )


@dataclass(frozen=True)
class Pass:
    """Some requests sent together. seconds: wall time from the first one's start to the last one's end."""

    each: tuple[Counts, ...]
    clock: EngineClock
    seconds: float

    @property
    def counts(self) -> Counts:
        return Counts.sum(self.each)

    def record(
        self, drafter: str, task: str, settings: Settings, concurrency: int, vocab: str = "shared"
    ) -> ProfileRecord | None:
        """The pass as a line of profile.jsonl; None if no request came as far as a verify step."""
        counts = self.counts
        if counts.verify_steps == 0:
            return None
        return ProfileRecord(
            drafter=drafter,
            task=task,
            **settings._asdict(),
            concurrency=concurrency,
            requests=counts.requests,
            verify_steps=counts.verify_steps,
            proposed_drafts=counts.proposed_drafts,
            correct_by_position=counts.correct_by_position(settings.depth),
            completion_tokens=counts.completion_tokens,
            draft_seconds=self.clock.draft_seconds,
            verify_seconds=self.clock.verify_seconds,
            seconds=self.seconds,
            verify_forwards=self.clock.verify_forwards,
            vocab=vocab,
        )


class Bench:
    """A running server with `--enable-metrics`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def run(self, requests: Sequence[Request], concurrency: int) -> Pass:
        """Send them, `concurrency` at a time, to a server that has forgotten all prefixes. ServingError."""
        flush_cache(self._server)
        before = read_clock(get(self._server, "/metrics"))
        answers, seconds = generate_all(
            self._server, [request.body() for request in requests], concurrency=concurrency, on_answer=lambda _: None
        )
        clock = read_clock(get(self._server, "/metrics")).since(before)
        return Pass(tuple(Counts.of_answer(timed.answer) for timed in answers), clock, seconds)


def read_clock(text: str) -> EngineClock:
    """The counters in the text of /metrics; ProfileError if it has none."""
    sums = {DRAFT_SECONDS: 0.0, VERIFY_SECONDS: 0.0, VERIFY_FORWARDS: 0.0}
    found = False
    for sample in samples(text, sums):
        sums[sample.name] += sample.value
        found |= sample.name == VERIFY_FORWARDS
    if not found:
        raise ProfileError(
            "The server's /metrics has no counters of HETERO; do not turn metrics off, and run `hetero-spec doctor`."
        )
    return EngineClock(sums[DRAFT_SECONDS], sums[VERIFY_SECONDS], round(sums[VERIFY_FORWARDS]))
