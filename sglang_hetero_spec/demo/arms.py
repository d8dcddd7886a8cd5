"""What is compared: ways to serve the same target, and the SGLang servers that they need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.demo.options import CONTEXT, DemoOptions
from sglang_hetero_spec.demo.shipped import Prompt
from sglang_hetero_spec.pool import Pool
from sglang_hetero_spec.serving import flags
from sglang_hetero_spec.serving.server import ServerPlan

NONE, STANDALONE, HETERO, ONE_DRAFTER = "none", "standalone", "hetero", "hetero_general"
NGRAM = "ngram"  # measured by benchmarks
TITLES = {
    NONE: "no speculation",
    STANDALONE: "STANDALONE",
    NGRAM: "NGRAM",
    HETERO: "HETERO",
    ONE_DRAFTER: "HETERO, general drafter only",
}
LESS_MEMORY = "close other programs, or try --target-params 100M or --one-at-a-time."


@dataclass(frozen=True)
class Arm:
    """One way to serve. server: the arm whose server it uses. override: the same `hetero` tag on every request."""

    name: str
    server: str
    override: dict[str, str] | None = None
    oracle: bool = False

    def custom_params(self, prompt: Prompt) -> dict[str, Any] | None:
        if self.oracle:
            return {"hetero": {"task": prompt.task}}
        return {"hetero": self.override} if self.override else None


def plan_arms(pool: Pool, options: DemoOptions, one_drafter: bool = False) -> list[Arm]:
    """In the order in which they are measured. one_drafter: also HETERO with the general drafter for all."""
    arms = [Arm(NONE, NONE), Arm(STANDALONE, STANDALONE), Arm(HETERO, HETERO, oracle=options.oracle)]
    if one_drafter:
        arms.append(Arm(ONE_DRAFTER, HETERO, override={"drafter": pool.fallback_drafter}))
    return arms


def plan_servers(target: Path, pool: Pool, options: DemoOptions) -> list[ServerPlan]:
    speculation = {
        NONE: (),
        STANDALONE: flags.standalone(pool.drafter(pool.fallback_drafter)),
        HETERO: flags.hetero(pool.root),
    }
    busiest = max(options.concurrency)
    common = flags.common(
        target,
        options.device,
        options.dtype,
        context=CONTEXT,
        busiest=busiest,
        tokens=CONTEXT * max(8, busiest),
        share=0.5 if options.device == "cpu" else 0.25,  # several servers side by side
    )
    environ = flags.environ(options.device, options.threads)
    return [
        ServerPlan(name, (*common, *extra), environ, TITLES[name], LESS_MEMORY) for name, extra in speculation.items()
    ]
