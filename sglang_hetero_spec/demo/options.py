"""What a run of the demo is asked to do: the command line with its defaults filled in, checked."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from sglang_hetero_spec.commands.output import UsageError
from sglang_hetero_spec.serving.device import choose_device, choose_threads, default_dtype

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
    device = choose_device(args.device)
    given = {
        name: value
        for name in ("num_prompts", "tokens", "concurrency", "passes", "target_params")
        if (value := getattr(args, name)) is not None
    }
    options = DemoOptions(
        device=device,
        dtype=args.dtype or default_dtype(device),
        threads=choose_threads(device, args.threads),
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
