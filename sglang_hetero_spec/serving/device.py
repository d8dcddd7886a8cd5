"""On which device, in which type and with how many threads an engine of ours runs where the user does not say."""

from __future__ import annotations

from sglang_hetero_spec.commands.output import UsageError


def default_dtype(device: str) -> str:
    """float32 on a CPU, where equal output can be shown to the last token; what GPUs are fast in on CUDA."""
    return "float32" if device == "cpu" else "bfloat16"


def choose_device(asked: str | None) -> str:
    """`cuda` where there is any; UsageError where it is asked for and there is none."""
    if asked == "cpu":
        return asked
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise UsageError("--device cuda: no CUDA device is visible here; leave it out to run on the CPU.")
    return "cpu"


def choose_threads(device: str, asked: int | None) -> int | None:
    """CPU threads of an engine; None on CUDA, where the engine decides."""
    if device != "cpu":
        return asked
    import os

    from sglang_hetero_spec.cpu.threads import physical_cores

    given = os.environ.get("OMP_NUM_THREADS", "")
    return asked or (int(given) if given.isdigit() and int(given) else physical_cores())
