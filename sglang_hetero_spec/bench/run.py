"""Runs the blocks of a benchmark that lack, and writes them down as they come."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sglang_hetero_spec.bench.arms import Arm
from sglang_hetero_spec.bench.arrivals import poisson
from sglang_hetero_spec.bench.blocks import Block, Journal, plan_blocks
from sglang_hetero_spec.bench.client import Streamed, send_all
from sglang_hetero_spec.bench.counters import ServerInfo, Watch, load_average, read_counters, read_info
from sglang_hetero_spec.bench.differences import explain, find_differences, read_gaps, write_differences
from sglang_hetero_spec.bench.metadata import write_metadata
from sglang_hetero_spec.bench.plan import RunPlan
from sglang_hetero_spec.bench.records import BlockRecord, RequestRecord
from sglang_hetero_spec.bench.workload import Item
from sglang_hetero_spec.commands.progress import Reporter, Steps
from sglang_hetero_spec.serving.client import Peer, flush_cache
from sglang_hetero_spec.serving.server import ServerPlan, running

WARM_UP_TOKENS = 12
LOGS_NAME = "logs"


class Run:
    """One session of a run. metadata: as in metadata.json, kept up to date there."""

    def __init__(self, plan: RunPlan, metadata: dict[str, Any], reporter: Reporter) -> None:
        self._plan, self._metadata, self._reporter = plan, metadata, reporter
        self._folder = plan.options.out
        self._before = metadata["seconds"] or 0.0
        self._began = time.monotonic()
        self._journal = Journal(self._folder)
        groups = [plan.arms_of(group) for group in plan.groups]
        self._blocks = plan_blocks(groups, plan.options.settings, plan.options.repetitions)

    @property
    def todo(self) -> list[Block]:
        return [block for block in self._blocks if block.key not in self._journal.done]

    def finish_blocks(self) -> None:
        """Serve what lacks. ServingError when a server fails; what was measured is kept."""
        total = len(self.todo) * len(self._plan.work.items)
        with self._reporter.steps("Requests", total) as steps:
            for group in self._plan.groups:
                names = {arm.name for arm in self._plan.arms_of(group)}
                mine = [block for block in self.todo if block.arm.name in names]
                if mine:
                    self._group(group, mine, steps)
        self._save(complete=True)

    def _group(self, group: Sequence[ServerPlan], blocks: Sequence[Block], steps: Steps) -> None:
        needed = {block.arm.server for block in blocks}
        plans = [plan for plan in group if plan.name in needed]
        with self._servers(plans) as servers:
            self._note_servers(servers)
            infos = {name: read_info(server) for name, server in servers.items()}
            arms = {block.arm.name: block.arm for block in blocks}
            self._warm_up(servers, list(arms.values()))
            steps.resume()
            for block in blocks:
                self._block(block, servers[block.arm.server], infos[block.arm.server], steps)
                self._save()
                steps.resume()
            self._compare({arm.name: servers[arm.server] for arm in arms.values()})

    @contextlib.contextmanager
    def _servers(self, plans: Sequence[ServerPlan]) -> Iterator[dict[str, Peer]]:
        logs = self._folder / LOGS_NAME
        logs.mkdir(exist_ok=True)
        titles = {plan.name: plan.title for plan in plans}
        if plans:
            self._reporter.line(f"Starting SGLang ({', '.join(titles.values())}), a minute or two ...")
        up = lambda name: self._reporter.line(f"SGLang is up: {titles[name]}.")  # noqa: E731
        with running(plans, logs, up) as servers:
            yield {**servers, **self._plan.remotes}

    def _note_servers(self, servers: Mapping[str, Peer]) -> None:
        for name, server in servers.items():
            info = read_info(server)
            entry = self._metadata["engine"]["servers"][name]
            entry |= {"version": info.version, "model_path": info.model_path}
        self._save()

    def _warm_up(self, servers: Mapping[str, Peer], arms: Sequence[Arm]) -> None:
        """The first requests of a server pay for what is built on first use; nobody measures them.

        One arm of those that route on the same server is enough: their drafters are the same.
        """
        first = {(arm.server, arm.drafter): arm for arm in reversed(arms)}
        tokens = min(self._plan.options.max_new_tokens, WARM_UP_TOKENS)
        warm = self._plan.work.warm_up
        for setting in self._plan.options.settings:
            busiest = len(warm) if setting.concurrency is None else setting.busiest(len(self._plan.work.items))
            items = list(warm) * -(-busiest // len(warm))
            for arm in first.values():
                bodies = [self._body(arm, item, number, 0, tokens) for number, item in enumerate(items)]
                send_all(servers[arm.server], bodies, concurrency=busiest, on_answer=lambda _: None)

    def _block(self, block: Block, server: Peer, info: ServerInfo, steps: Steps) -> None:
        options, items = self._plan.options, self._plan.work.items
        flush_cache(server)
        before = read_counters(server)
        bodies = [
            self._body(block.arm, item, number, block.repetition, options.max_new_tokens)
            for number, item in enumerate(items)
        ]
        rate = block.setting.rate
        times = [] if rate is None else poisson(rate, len(bodies), f"{options.seed}/{block.repetition}")
        records: list[RequestRecord] = []

        def answered(one: Streamed) -> None:
            records.append(_record(block, one, items[one.number], info.algorithm is not None))
            self._journal.add_request(records[-1])
            steps.advance(f"{block.arm.title}, {block.setting.words}")

        with Watch(server) as watch:
            seconds = send_all(server, bodies, concurrency=block.setting.concurrency, times=times, on_answer=answered)
        self._journal.add_block(
            BlockRecord(
                arm=block.arm.name,
                setting=block.setting.name,
                repetition=block.repetition,
                order=block.order,
                seconds=seconds,
                peak_load=load_average(),
                kv_bytes=info.kv_bytes,
                kv_used_tokens=watch.peak,
                **read_counters(server).since(before),
            )
        )
        tokens = sum(one.completion_tokens for one in records)
        self._reporter.line(f"{block.arm.title}, {block.setting.words}: {tokens / seconds:.1f} tokens/s")

    def _body(self, arm: Arm, item: Item, prompt: int, repetition: int, tokens: int) -> dict[str, Any]:
        params: dict[str, Any] = {"temperature": self._plan.options.temperature, "max_new_tokens": tokens}
        override = arm.override(item, prompt, repetition, self._plan.options.seed)
        if override is not None:
            params["custom_params"] = {"hetero": override}
        return {**item.body, "sampling_params": params}

    def _compare(self, servers: Mapping[str, Peer]) -> None:
        """Only greedy answers are the same by right."""
        if self._plan.options.temperature > 0:
            return
        records = self._journal.requests()
        found = find_differences(records, self._metadata["baseline"])
        explained = explain(found, read_gaps(self._folder), records, self._plan.work.items, servers)
        write_differences(self._folder, explained)

    def _save(self, complete: bool = False) -> None:
        self._metadata["seconds"] = round(self._before + time.monotonic() - self._began, 1)
        self._metadata["complete"] = complete
        write_metadata(self._folder, self._metadata)


def _record(block: Block, one: Streamed, item: Item, speculates: bool) -> RequestRecord:
    """speculates: whether the server does. It leaves the counts of an answer without a verify step out: they are 0."""
    meta: dict[str, Any] = one.meta
    route = meta.get("hetero") or {}
    no_step = 0 if speculates and not meta.get("spec_verify_ct") else None
    histogram = meta.get("spec_correct_drafts_histogram", [] if no_step == 0 else None)
    return RequestRecord(
        arm=block.arm.name,
        setting=block.setting.name,
        repetition=block.repetition,
        prompt=one.number,
        task=item.task,
        prompt_tokens=meta["prompt_tokens"],
        completion_tokens=meta["completion_tokens"],
        start=one.start,
        seconds=one.seconds,
        ttft=one.ttft,
        chunks=one.chunks,
        verify_steps=meta.get("spec_verify_ct", no_step),
        proposed=meta.get("spec_num_proposed_drafts", no_step),
        correct=meta.get("spec_num_correct_drafts", no_step),
        histogram=None if histogram is None else [int(number) for number in histogram],
        drafter=route.get("drafter"),
        confidence=route.get("confidence"),
        source=route.get("source"),
        output_ids=list(one.output_ids),
        finish=meta["finish_reason"]["type"],
    )
