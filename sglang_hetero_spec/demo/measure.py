"""Runs every arm over the same prompts, alternating, and finds what differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.commands.progress import Reporter, Steps
from sglang_hetero_spec.demo.arms import NONE, TITLES, Arm
from sglang_hetero_spec.demo.client import Pass, run_pass
from sglang_hetero_spec.demo.errors import DemoError
from sglang_hetero_spec.demo.options import DemoOptions
from sglang_hetero_spec.demo.shipped import Prompt
from sglang_hetero_spec.demo.summary import Difference, Results, find_differences
from sglang_hetero_spec.serving import groups as together
from sglang_hetero_spec.serving.client import flush_cache, logit_gap
from sglang_hetero_spec.serving.server import Server, ServerPlan, running

WARM_UP_TOKENS = 24
MAX_EXPLAINED = 8  # differences whose logits are asked for


@dataclass(frozen=True)
class Workload:
    """The prompts of a run: measured ones, and those that warm a server up."""

    prompts: Sequence[Prompt]
    warm_up: Sequence[Prompt]


def run(
    plans: Sequence[ServerPlan],
    arms: Sequence[Arm],
    work: Workload,
    options: DemoOptions,
    *,
    num_params: int,
    logs: Path,
    reporter: Reporter,
) -> Results:
    """All passes of all arms. Raises ServingError when a server fails."""
    passes: list[Pass] = []
    differences: list[Difference] = []
    total = len(arms) * len(options.concurrency) * options.passes * len(work.prompts)
    with reporter.steps("Serving prompts", total) as steps:
        for group in groups(plans, options, num_params):
            titles = ", ".join(TITLES[plan.name] for plan in group)
            reporter.line(f"Starting SGLang ({titles}), a minute or two ...")
            with running(group, logs, lambda name: reporter.line(f"SGLang is up: {TITLES[name]}.")) as servers:
                mine = [arm for arm in arms if arm.server in servers]
                _warm_up(servers, mine, work, options)
                steps.resume()
                passes += _passes(servers, mine, work, options, steps, reporter)
                differences += _explained(servers, arms, passes, work)
    return Results(passes, differences)


def groups(plans: Sequence[ServerPlan], options: DemoOptions, num_params: int) -> list[Sequence[ServerPlan]]:
    """Servers that are up at the same time: all; one after the other where asked for, or where memory is short."""
    if options.one_at_a_time:
        return [[plan] for plan in plans]
    try:
        found = together.groups(plans, options.device, together.server_bytes(num_params, options.dtype))
    except together.TooLarge as error:
        raise DemoError(f"{error}, or try --target-params 100M.") from None
    return [[plan] for plan in plans] if len(found) > 1 else list(found)


def _warm_up(servers: dict[str, Server], arms: Sequence[Arm], work: Workload, options: DemoOptions) -> None:
    """The first requests of a server pay for what is built on first use; nobody measures them."""
    for concurrency in options.concurrency:
        repeats = -(-concurrency // len(work.warm_up))
        for arm in arms:
            run_pass(
                servers[arm.server],
                arm,
                list(work.warm_up) * repeats,
                concurrency=concurrency,
                tokens=min(options.tokens, WARM_UP_TOKENS),
                on_answer=lambda _: None,
            )


def _passes(
    servers: dict[str, Server],
    arms: Sequence[Arm],
    work: Workload,
    options: DemoOptions,
    steps: Steps,
    reporter: Reporter,
) -> Iterator[Pass]:
    for concurrency in options.concurrency:
        for number in range(options.passes):
            # There and back again: an arm is not always the one that comes after the slow one.
            for arm in arms if number % 2 == 0 else list(reversed(arms)):
                flush_cache(servers[arm.server])
                title = TITLES.get(arm.name, arm.name)
                one = run_pass(
                    servers[arm.server],
                    arm,
                    work.prompts,
                    concurrency=concurrency,
                    tokens=options.tokens,
                    on_answer=lambda _, title=title: steps.advance(title),
                )
                speed = sum(answer.completion_tokens for answer in one.answers) / one.wall_seconds
                reporter.line(f"{title}, {concurrency} in flight: {speed:.1f} tokens/s")
                yield one


def _explained(
    servers: dict[str, Server], arms: Sequence[Arm], passes: Sequence[Pass], work: Workload
) -> list[Difference]:
    """Differences of the arms that these servers serve; of the first few, how close the target's choice was."""
    server_of = {arm.name: servers[arm.server] for arm in arms if arm.server in servers}
    found = [d for d in find_differences(passes) if d.arm in server_of]
    reference = next(one for one in passes if one.arm == NONE)
    explained = []
    for number, difference in enumerate(found):
        gap = None
        if number < MAX_EXPLAINED:
            committed = reference.answers[difference.prompt].output_ids[: difference.place]
            gap = logit_gap(server_of[difference.arm], {"text": work.prompts[difference.prompt].text}, committed)
        explained.append(dataclasses.replace(difference, gap=gap))
    return explained
