"""What of the CUDA side can be used on this machine, and why not."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch

from sglang_hetero_spec.errors import HeteroError

# Experts and tests: auto (by what is known of this device), or one of the two ways by name.
MERGE_SWITCH = "SGLANG_HETERO_SPEC_MERGE"
VERIFY_SWITCH = "SGLANG_HETERO_SPEC_VERIFY"
GRAPHS_SWITCH = "SGLANG_HETERO_SPEC_DRAFT_GRAPHS"
# A whole number: of widths at which the target's verification is captured, the widest among them.
WIDTHS_SWITCH = "SGLANG_HETERO_SPEC_VERIFY_WIDTHS"
STREAMS_SWITCH = "SGLANG_HETERO_SPEC_DRAFT_STREAMS"
SWITCHES = {
    MERGE_SWITCH: ("triton", "torch"),
    VERIFY_SWITCH: ("stock", "parts"),
    GRAPHS_SWITCH: ("on", "off"),
    STREAMS_SWITCH: ("serial", "parallel"),
}


def switch(name: str) -> str:
    """One of SWITCHES as it is set, `auto` where it is not. HeteroError for a value that is none of its ways."""
    value, ways = os.environ.get(name, "") or "auto", SWITCHES[name]
    if value not in ("auto", *ways):
        raise HeteroError(f"{name} is {value}; set it to auto, {' or '.join(ways)}.")
    return value


def num_verify_widths() -> int:
    """1 where nothing was asked for. HeteroError for what is no whole number above zero."""
    value = os.environ.get(WIDTHS_SWITCH, "") or "1"
    if not value.isdecimal() or int(value) < 1:
        raise HeteroError(f"{WIDTHS_SWITCH} is {value}; set it to a whole number from 1 on.")
    return int(value)


def check_switches() -> None:
    """HeteroError for a value that means nothing, before anything is loaded."""
    for name in SWITCHES:
        switch(name)
    num_verify_widths()


@cache
def why_no_triton() -> str | None:
    """Why kernels in Triton cannot be compiled here, in one clause, or None."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return None


def merges_in_triton(device: torch.device) -> bool:
    """Whether trees on this device are merged by the fused kernel: only where asked for, until it has been run and
    measured on a GPU (benchmarks/gpu_run.py). HeteroError if it was asked for and cannot be."""
    if switch(MERGE_SWITCH) != "triton":
        return False
    problem = why_no_triton() if device.type == "cuda" else f"the trees are on the device {device.type}"
    if problem is not None:
        raise HeteroError(f"{MERGE_SWITCH} is triton, but {problem}; leave it unset.")
    return True
