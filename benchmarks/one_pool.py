"""What benchmarks of one pool share: a plain server and a HETERO server, passes of their arms alternating."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sglang_hetero_spec.commands.checked import checked_pool
from sglang_hetero_spec.commands.progress import Reporter
from sglang_hetero_spec.demo import measure
from sglang_hetero_spec.demo.arms import HETERO, NONE, Arm, plan_servers
from sglang_hetero_spec.demo.machine import describe
from sglang_hetero_spec.demo.options import DemoOptions
from sglang_hetero_spec.demo.run import _target
from sglang_hetero_spec.demo.shipped import Shipped, find_shipped, interleave
from sglang_hetero_spec.demo.summary import Results
from sglang_hetero_spec.files import write_json
from sglang_hetero_spec.serving.interrupt import terminated_like_interrupted


def by_hand(drafters: Sequence[dict[str, Any]], fallback: str, **more: Any) -> dict[str, Any]:
    """A manifest whose drafters lie outside of the pool."""
    return {
        **{"format": "sglang_hetero_spec.pool", "schema_version": 1, "target": {}, "drafters": list(drafters)},
        **{"tasks": [], "fallback_drafter": fallback, **more},
    }


def measure_arms(
    manifest: dict[str, Any], arms: Sequence[Arm], options: DemoOptions, shipped: Shipped | None = None
) -> Results:
    """Serve the demo's target without speculation and with this pool, and send both the demo's held-out prompts.

    shipped: another target and its prompts.
    """
    shipped = shipped or find_shipped()
    prompts, warm_up = interleave(shipped.prompts(), options.num_prompts)
    with tempfile.TemporaryDirectory() as folder, terminated_like_interrupted(), Reporter() as reporter:
        print(f"Machine: {describe(options).sentence()}.")
        root = Path(folder) / "pool"
        root.mkdir()
        write_json(root / "pool.json", manifest, OSError)
        costly, target = _target(shipped, options, reporter)
        pool = checked_pool(str(root), str(target))
        servers = [plan for plan in plan_servers(target, pool, options) if plan.name in (NONE, HETERO)]
        return measure.run(
            servers,
            [Arm(NONE, NONE), *arms],
            measure.Workload(prompts, warm_up),
            options,
            num_params=costly.num_params if costly else 0,
            logs=Path(folder),
            reporter=reporter,
        )


def output_line(results: Results) -> str:
    return "Output: identical." if not results.differences else f"{len(results.differences)} answers differ."
