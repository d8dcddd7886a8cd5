"""SGLang's options that servers to be compared have in common."""

from __future__ import annotations

from pathlib import Path

from sglang_hetero_spec.pool import DrafterSpec

# SGLang's own default for speculation, given to every server so that all batch alike.
MAX_RUNNING_REQUESTS = 48


def common(
    target: str | Path, device: str, dtype: str, *, context: int | None, busiest: int, tokens: int | None, share: float
) -> tuple[str, ...]:
    """context: --context-length, None for the model's own. busiest: requests in flight. tokens: KV slots, None for what
    the memory gives. share: of the memory, for weights and KV of one server."""
    flags = ["--model-path", str(target), "--device", device, "--dtype", dtype]
    if context is not None:
        flags += ["--context-length", str(context)]
    if tokens is not None:
        flags += ["--max-total-tokens", str(tokens)]
    flags += ["--max-running-requests", str(max(MAX_RUNNING_REQUESTS, busiest))]
    flags += ["--mem-fraction-static", f"{share:.3g}", "--watchdog-timeout", "600", "--log-level", "warning"]
    return (*flags, "--sleep-on-idle")


def standalone(drafter: DrafterSpec) -> tuple[str, ...]:
    """SGLang's STANDALONE with a drafter of a pool, in the shape that it has there."""
    return (
        *("--speculative-algorithm", "STANDALONE"),
        *("--speculative-draft-model-path", str(drafter.path)),
        *("--speculative-num-steps", str(drafter.num_steps)),
        *("--speculative-eagle-topk", str(drafter.topk)),
        *("--speculative-num-draft-tokens", str(drafter.num_draft_tokens)),
    )


def hetero(pool: str | Path) -> tuple[str, ...]:
    return ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(pool))


def environ(device: str, threads: int | None) -> dict[str, str]:
    variables = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    if device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = ""  # the CPU engine steps back where it sees CUDA
    return variables
