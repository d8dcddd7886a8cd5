"""What a run of the demo is asked to do: the command line with its defaults filled in, checked."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from sglang_hetero_spec.commands.output import UsageError

TARGET_PARAMS = 200_000_000  # with the numbers below, meant for six minutes on 2 cores
CONTEXT = 1024  # tokens that the demo's models were made for
PROMPT_ROOM = 256  # the longest held-out prompt is far shorter


@dataclass(frozen=True)
class DemoOptions:
    """num_prompts: of all tasks together. tokens: new tokens per request at most. target_params 0: as shipped.

    concurrency: requests in flight, one measurement for each. passes: timed repetitions of each arm.
    threads: CPU threads of the engine, None on CUDA where the engine decides.
    """

    device: str
    dtype: str
    threads: int | None
    num_prompts: int = 18
    tokens: int = 64
    concurrency: tuple[int, ...] = (4,)
    passes: int = 2
    target_params: int = TARGET_PARAMS
    oracle: bool = False
    one_at_a_time: bool = False


def from_arguments(args: argparse.Namespace) -> DemoOptions:
    """UsageError, in one sentence, for what cannot be run here."""
    device = _device(args.device)
    given = {
        name: value
        for name in ("num_prompts", "tokens", "concurrency", "passes", "target_params")
        if (value := getattr(args, name)) is not None
    }
    options = DemoOptions(
        device=device,
        dtype=args.dtype or default_dtype(device),
        threads=_threads(device, args.threads),
        oracle=args.oracle,
        one_at_a_time=args.one_at_a_time,
        **given,
    )
    if options.tokens > CONTEXT - PROMPT_ROOM:
        raise UsageError(
            f"--tokens {options.tokens} does not fit the demo's models (context {CONTEXT}); give at most"
            f" {CONTEXT - PROMPT_ROOM}."
        )
    return options


def default_dtype(device: str) -> str:
    """float32 on a CPU, where equal output can be shown to the last token; what GPUs are fast in on CUDA."""
    return "float32" if device == "cpu" else "bfloat16"


def _device(asked: str | None) -> str:
    if asked == "cpu":
        return asked
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise UsageError("--device cuda: no CUDA device is visible here; leave it out to run on the CPU.")
    return "cpu"


def _threads(device: str, asked: int | None) -> int | None:
    if device != "cpu":
        return asked
    import os

    from sglang_hetero_spec.cpu.threads import physical_cores

    given = os.environ.get("OMP_NUM_THREADS", "")
    return asked or (int(given) if given.isdigit() and int(given) else physical_cores())
