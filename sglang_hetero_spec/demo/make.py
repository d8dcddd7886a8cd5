"""Makes the demo's target from nothing, its pool by `build` with recipe.yaml, drafters of the other kinds for it, and a
second, smaller target with a pool of its own.

python -m sglang_hetero_spec.demo.make --out DIR
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from sglang_hetero_spec.errors import HeteroError

RECIPE = Path(__file__).parent / "recipe.yaml"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    says = " ".join((__doc__ or "").partition("\n\n")[0].split())
    parser = argparse.ArgumentParser(prog="python -m sglang_hetero_spec.demo.make", description=says)
    parser.add_argument(
        "--out", type=Path, required=True, help="where target/, pool/, small/ and heldout.jsonl are written"
    )
    parser.add_argument(
        "--data", type=Path, help="folder with gsm8k_train.jsonl and e2e_dev.csv (generated text without it)"
    )
    parser.add_argument("--quick", action="store_true", help="same form, a few minutes, weak models")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    parser.add_argument("--no-bf16", action="store_true", help="train in float32 throughout")
    return parser.parse_args(argv)


def _table(heldout: dict[str, Any]) -> str:
    lines = [
        f"{'task':<10}{'task drafter':>24}{'general drafter':>24}{'gain':>8}",
        f"{'':<10}{'rate  length':>24}{'rate  length':>24}",
    ]
    for task, row in heldout.items():
        own, general = row["task"], row["general"]
        gain = own["accept_rate"] / max(1e-9, general["accept_rate"]) - 1
        cells = "".join(f"{c['accept_rate']:>16.3f}{c['accept_length']:>8.2f}" for c in (own, general))
        lines.append(f"{task:<10}{cells}{gain:>8.1%}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"--out {args.out} cannot be written ({error.strerror}); name a folder that can", file=sys.stderr)
        return 2
    import torch

    from sglang_hetero_spec.build.layout import Layout
    from sglang_hetero_spec.build.pipeline import build
    from sglang_hetero_spec.build.prompts import PROMPTS_NAME
    from sglang_hetero_spec.build.recipe import load_recipe
    from sglang_hetero_spec.demo.data import find_sources
    from sglang_hetero_spec.demo.kinds import KindSettings, add_kinds
    from sglang_hetero_spec.demo.publish import publish
    from sglang_hetero_spec.demo.train.settings import FULL, QUICK
    from sglang_hetero_spec.demo.train.stages import Workshop
    from sglang_hetero_spec.demo.two_targets import Bench, TwoSettings, add_second_target

    if args.threads:
        torch.set_num_threads(args.threads)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {text}", flush=True)

    sources, note = find_sources(args.data)
    if note:
        say(note)
    bf16 = not args.no_bf16 and torch.cpu._is_avx512_bf16_supported()
    settings = QUICK if args.quick else FULL
    shop = Workshop(args.out, sources, settings, bf16, say)
    try:
        shop.prepare()
        shop.train_target()
        shop.write_prompts()
        given = {"target": str(shop.target_dir), "prompts": str(shop.log), "seed": settings.seed, **settings.recipe}
        recipe = load_recipe(RECIPE, given)
        built = build(recipe, shop.work / "pool", say)
        about = {"settings": settings.as_dict(), "recipe": recipe.model_dump(exclude={"target", "prompts"})}
        made = publish(built.pool.root, args.out, about)
        layout = Layout(built.pool.root)
        kinds = KindSettings(sorted_tokens=20_000, lora_tokens=20_000) if args.quick else KindSettings()
        add_kinds(shop.target_dir, layout, args.out, shop.work / "kinds", kinds, say)
        two = TwoSettings(30_000, 15_000, 30_000, 300) if args.quick else TwoSettings()
        prompts = layout.partition / PROMPTS_NAME
        add_second_target(Bench(shop.target_dir, layout.split, prompts, shop.work / "two", two, say), args.out)
        print(_table(made["heldout"]))
    except HeteroError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on from here", file=sys.stderr)
        return 1
    say(f"done: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
