"""What a benchmark is asked to do: the command line with its defaults filled in, checked."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.bench.arrivals import Setting, settings_of
from sglang_hetero_spec.commands.output import UsageError
from sglang_hetero_spec.demo.options import TARGET_PARAMS
from sglang_hetero_spec.serving.device import choose_device, choose_threads, default_dtype

INTERLEAVED, GROUPED = "interleaved", "grouped"
# With the command's own arms, 1 and 4 in flight and 3 repetitions: meant for half an hour on 2 cores.
DEMO_PROMPTS, DEMO_TOKENS = 12, 32
NUM_PROMPTS, MAX_NEW_TOKENS = 48, 128


@dataclass(frozen=True)
class BenchOptions:
    """target, pool, prompts: None where the demo's own are used (all three then, or `prompts` alone given).

    target_params: make the target as costly as one of so many parameters; 0: as it is. prompt_tokens: lengths that
    prompts are brought to; empty: as they are. arms: names, None for the usual ones. urls: (arm or "", address).
    """

    target: str | None
    pool: str | None
    prompts: str | None
    out: Path
    device: str
    dtype: str
    threads: int | None
    settings: tuple[Setting, ...]
    repetitions: int
    num_prompts: int
    max_new_tokens: int
    target_params: int
    prompt_tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    seed: int = 0
    context: int | None = None
    arms: tuple[str, ...] | None = None
    arms_file: str | None = None
    urls: tuple[tuple[str, str], ...] = ()
    standalone: str | None = None
    order: str = INTERLEAVED

    @property
    def is_demo(self) -> bool:
        return self.target is None


def from_arguments(args: argparse.Namespace, out: Path) -> BenchOptions:
    """UsageError, in one sentence, for what cannot be run here."""
    is_demo = _is_demo(args)
    device = choose_device(args.device)
    rates = args.rate or ()
    concurrency = args.concurrency or (() if rates else (1, 4))
    return BenchOptions(
        target=args.target,
        pool=args.pool,
        prompts=args.prompts,
        out=out,
        device=device,
        dtype=args.dtype or default_dtype(device),
        threads=choose_threads(device, args.threads),
        settings=settings_of(concurrency, rates),
        repetitions=args.repetitions,
        num_prompts=args.num_prompts or (DEMO_PROMPTS if is_demo else NUM_PROMPTS),
        max_new_tokens=args.max_new_tokens or (DEMO_TOKENS if is_demo else MAX_NEW_TOKENS),
        target_params=args.target_params if args.target_params is not None else TARGET_PARAMS if is_demo else 0,
        prompt_tokens=args.prompt_tokens or (),
        temperature=args.temperature,
        seed=args.seed,
        context=args.context_length,
        arms=args.arms,
        arms_file=args.arms_file,
        urls=tuple(args.url or ()),
        standalone=args.standalone,
        order=args.order,
    )


def _is_demo(args: argparse.Namespace) -> bool:
    if args.target is None and args.pool is None:
        return True
    for name in ("target", "pool", "prompts"):
        if getattr(args, name) is None:
            raise UsageError(
                f"--{name} is missing: give --target, --pool and --prompts, or none of --target and --pool for the"
                " demo's own."
            )
    return False
