"""What is compared: ways to serve the same target, and the SGLang servers that they need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.demo.options import CONTEXT, DemoOptions
from sglang_hetero_spec.demo.shipped import Prompt
from sglang_hetero_spec.pool import Pool
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
# SGLang's own default for speculation, given to every arm so that all batch alike.
MAX_RUNNING_REQUESTS = 48
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
    general = pool.drafter(pool.fallback_drafter)
    speculation = {
        NONE: (),
        STANDALONE: (
            *("--speculative-algorithm", "STANDALONE"),
            *("--speculative-draft-model-path", str(general.path)),
            *("--speculative-num-steps", str(general.num_steps)),
            *("--speculative-eagle-topk", str(general.topk)),
            *("--speculative-num-draft-tokens", str(general.num_draft_tokens)),
        ),
        HETERO: ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(pool.root)),
    }
    common = _common(target, options)
    environ = _environ(options)
    return [
        ServerPlan(name, (*common, *extra), environ, TITLES[name], LESS_MEMORY) for name, extra in speculation.items()
    ]


def _common(target: Path, options: DemoOptions) -> tuple[str, ...]:
    busiest = max(options.concurrency)
    return (
        *("--model-path", str(target)),
        *("--device", options.device),
        *("--dtype", options.dtype),
        *("--context-length", str(CONTEXT)),
        *("--max-total-tokens", str(CONTEXT * max(8, busiest))),
        *("--max-running-requests", str(max(MAX_RUNNING_REQUESTS, busiest))),
        *("--mem-fraction-static", "0.5" if options.device == "cpu" else "0.25"),  # several servers side by side
        *("--watchdog-timeout", "600"),
        *("--log-level", "warning"),
        "--sleep-on-idle",
    )


def _environ(options: DemoOptions) -> dict[str, str]:
    environ = {} if options.threads is None else {"OMP_NUM_THREADS": str(options.threads)}
    if options.device == "cpu":
        environ["CUDA_VISIBLE_DEVICES"] = ""  # the CPU engine steps back where it sees CUDA
    return environ
