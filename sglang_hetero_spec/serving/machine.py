"""On what the figures were taken."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sglang_hetero_spec.doctor_machine import available_memory, usable_cores


@dataclass(frozen=True)
class Machine:
    """cores: usable by this process. memory_gb: that was available at the start, None if unknown."""

    processor: str
    cores: int
    threads: int | None
    device: str
    dtype: str
    memory_gb: float | None
    python: str
    torch: str
    sglang: str

    def sentence(self) -> str:
        memory = "" if self.memory_gb is None else f", {self.memory_gb:.0f} GB free"
        engine = f"{self.threads} threads" if self.threads else "SGLang's own number of threads"
        where = f"{self.processor}, {self.cores} cores{memory}"
        if self.device != "cpu":
            where = f"{self.device} beside {where}"
        return (
            f"{where}; engine in {self.dtype} with {engine}; SGLang {self.sglang}, torch {self.torch},"
            f" Python {self.python}"
        )


def describe(device: str, dtype: str, threads: int | None) -> Machine:
    """device: `cpu` or `cuda`. threads: CPU threads of the engine, None where it decides."""
    free = available_memory()
    return Machine(
        processor=_processor(),
        cores=usable_cores(),
        threads=threads,
        device=_device_name(device),
        dtype=dtype,
        memory_gb=None if free is None else round(free / 2**30, 1),
        python=platform.python_version(),
        torch=version("torch"),
        sglang=version("sglang"),
    )


def _device_name(device: str) -> str:
    if device == "cpu":
        return device
    import torch

    return torch.cuda.get_device_name()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
