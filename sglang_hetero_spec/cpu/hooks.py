"""Where the CPU engine reaches into SGLang."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from sglang_hetero_spec.hooks import Hook


def keep_intel_amx_backend(original: Callable[[Any], dict], view: Any) -> dict:
    """Keep the `intel_amx` attention backend on a CPU without AMX: its ops are ours there.

    view: SGLang's resolved view of the server arguments. Returns the field overrides that SGLang records.
    """
    ours = getattr(sys.modules.get("sgl_kernel"), "HETERO_CPU_ENGINE", False)
    if ours and view.device == "cpu" and view.attention_backend == "intel_amx":
        return {}
    return original(view)


HOOKS = (
    Hook(
        target="sglang.srt.arg_groups.overrides._attention_backend_platform_fallbacks",
        kind="around",
        function="sglang_hetero_spec.cpu.hooks.keep_intel_amx_backend",
        why="Without AMX, intel_amx becomes torch_native, which cannot speculate.",
        retire="SGLang ships CPU attention with tree masks that needs no AMX.",
    ),
)
