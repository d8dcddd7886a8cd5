"""Counters per drafter, on SGLang's own /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang.srt.runtime_context import get_observability, get_parallel

from sglang_hetero_spec.router.route import Route

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.utils import GenerationBatchResult

NOBODY = "(none drafted)"
# Seconds; 0.2 ms and 1 ms are what routing may take at the median and at the 99th percentile.
ROUTE_BUCKETS = (2e-5, 5e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 7.5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1e-1)


class DrafterMetrics:
    """Prometheus counters with the labels drafter (and source, for routed requests).

    accept counts include the bonus token, correct counts do not (SGLang's speculative naming). A step in which a
    request was not drafted for is counted under its own label, one for which two drafted under both names ("a+b"), so
    that sums over labels are sums over all.
    """

    def __init__(self, drafter_names: list[str]) -> None:
        from prometheus_client import Counter

        self._names = drafter_names
        self._routed = Counter(
            "sglang:hetero_routed_requests", "Requests by drafter and by who chose it.", ["drafter", "source"]
        )
        self._verify = Counter("sglang:hetero_verify", "Verify steps of requests.", ["drafter"])
        self._proposed = Counter("sglang:hetero_proposed_drafts", "Draft tokens verified.", ["drafter"])
        self._correct = Counter("sglang:hetero_correct_drafts", "Draft tokens found right.", ["drafter"])
        self._accept = Counter("sglang:hetero_accept_tokens", "Tokens committed, bonus included.", ["drafter"])
        self._seconds = Counter("sglang:hetero_draft_seconds", "Host seconds spent proposing.", ["drafter"])
        self._draft_forward_seconds = Counter(
            "sglang:hetero_draft_forward_seconds", "Of these, host seconds in forwards of draft models.", ["drafter"]
        )
        self._verify_seconds = Counter("sglang:hetero_verify_seconds", "Host seconds of batch steps, beside proposing.")
        self._host_seconds = Counter(
            "sglang:hetero_host_seconds", "Of these, host seconds that are not the target's forward."
        )
        self._forwards = Counter("sglang:hetero_verify_forwards", "Batch steps that some request got tokens from.")

    def add_drafter(self, name: str) -> None:
        """One more, the last one."""
        self._names.append(name)

    def count_request(self, route: Route) -> None:
        self._routed.labels(drafter=route.drafter, source=route.source).inc()

    def count_step(self, result: GenerationBatchResult, reqs: list[Req]) -> None:
        """result.hetero: StepRecord; result.num_correct_drafts_per_req_cpu: one number per request; result.cap_lens:
        nodes verified, root included, on the host by now.

        Under overlap scheduling a step may hold requests that ended while it was under way; SGLang does not count
        them in meta_info, so they do not count here either.
        """
        sums: dict[tuple[int, ...], list[int]] = {}
        record = result.hetero
        for req, drafters, nodes, correct in zip(
            reqs, record.drafters, result.cap_lens.tolist(), result.num_correct_drafts_per_req_cpu, strict=True
        ):
            if req.is_retracted or req.finished():
                continue
            row = sums.setdefault(drafters, [0, 0, 0])
            row[0] += 1
            row[1] += nodes - 1
            row[2] += correct
        for drafters, (steps, proposed, correct) in sums.items():
            name = "+".join(self._names[drafter] for drafter in drafters) or NOBODY
            self._verify.labels(drafter=name).inc(steps)
            self._proposed.labels(drafter=name).inc(proposed)
            self._correct.labels(drafter=name).inc(correct)
            self._accept.labels(drafter=name).inc(correct + steps)
        for drafter, seconds in record.seconds.draft.items():
            self._seconds.labels(drafter=self._names[drafter]).inc(seconds)
        for drafter, seconds in record.seconds.draft_forward.items():
            self._draft_forward_seconds.labels(drafter=self._names[drafter]).inc(seconds)
        self._verify_seconds.inc(record.seconds.verify)
        self._host_seconds.inc(record.seconds.host)
        self._forwards.inc(1 if sums else 0)


class NoMetrics:
    """Where metrics are off, or on ranks whose counts would double those of rank 0."""

    def add_drafter(self, name: str) -> None:
        pass

    def count_request(self, route: Route) -> None:
        pass

    def count_step(self, result: GenerationBatchResult, reqs: list[Req]) -> None:
        pass


def build_metrics(drafter_names: list[str]) -> DrafterMetrics | NoMetrics:
    if get_observability().enable_metrics and get_parallel().attn_tp_rank == 0:
        return DrafterMetrics(drafter_names)
    return NoMetrics()


def count_step(_tokens: Any, processor: Any, result: GenerationBatchResult, batch: ScheduleBatch) -> None:
    """After SchedulerBatchResultProcessor._resolve_spec_v2_tokens."""
    if "hetero" in vars(result):
        processor.model_worker.metrics.count_step(result, batch.reqs)


class RouteTimer:
    """How long the routing of one request took, in the tokenizer process, by who chose the drafter."""

    def __init__(self) -> None:
        from prometheus_client import Histogram

        self._seconds = Histogram(
            "sglang:hetero_route_seconds", "Seconds to route one request.", ["source"], buckets=ROUTE_BUCKETS
        )

    def observe(self, route: Route, seconds: float) -> None:
        self._seconds.labels(source=route.source).observe(seconds)


def build_route_timer() -> RouteTimer | None:
    return RouteTimer() if get_observability().enable_metrics else None
