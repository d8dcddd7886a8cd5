"""On what the figures of the demo were taken."""

from __future__ import annotations

from sglang_hetero_spec.demo.options import DemoOptions
from sglang_hetero_spec.serving import machine
from sglang_hetero_spec.serving.machine import Machine

__all__ = ["Machine", "describe"]


def describe(options: DemoOptions) -> Machine:
    return machine.describe(options.device, options.dtype, options.threads)
