"""Switching the CPU engine on and off for this process and the ones it will spawn."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.cpu.threads import physical_cores

logger = logging.getLogger(__name__)

SHIM_DIR = str(Path(__file__).resolve().parent / "shim")
# Imported by SGLang before its plugins load; once there, it is too late to offer another sgl_kernel.
_TOO_LATE = "sglang.srt.utils.common"


class CpuEngineError(RuntimeError):
    """The CPU engine cannot be switched on here; the message says what to do."""


@dataclass(frozen=True)
class _Saved:
    environ: dict[str, str | None]
    had_shim_on_path: bool


_saved: _Saved | None = None


def is_enabled() -> bool:
    """True in a process in which, or in whose ancestors, `enable()` took effect."""
    return os.environ.get("SGLANG_USE_CPU_ENGINE") == "1" and SHIM_DIR in sys.path


def enable() -> bool:
    """Make `import sglang` work without CUDA and AMX, here and in spawned processes.

    Must run before SGLang is imported. Idempotent. Where CUDA is available nothing is done, and False is returned.
    Raises CpuEngineError when SGLang is already imported without the CPU engine.
    """
    global _saved
    if is_enabled():
        return True
    if _cuda_available():
        logger.info("CUDA is available: the CPU engine stays off.")
        return False
    if _TOO_LATE in sys.modules:
        raise CpuEngineError(
            "sglang was imported before sglang_hetero_spec.cpu.enable(); call enable() first, in a fresh process."
        )
    settings = _settings()
    _saved = _Saved({name: os.environ.get(name) for name in settings}, SHIM_DIR in sys.path)
    os.environ.update(settings)
    if SHIM_DIR not in sys.path:
        sys.path.insert(0, SHIM_DIR)
    sys.modules.pop("sgl_kernel", None)
    logger.info("CPU engine on: PyTorch ops in place of sgl_kernel, OMP_NUM_THREADS=%s.", settings["OMP_NUM_THREADS"])
    return True


def disable() -> None:
    """Undo `enable()`: environment, module path and our modules are as they were before."""
    global _saved
    if _saved is None:
        return
    for name, value in _saved.environ.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if not _saved.had_shim_on_path and SHIM_DIR in sys.path:
        sys.path.remove(SHIM_DIR)
    shim = sys.modules.get("sgl_kernel")
    if shim is not None and getattr(shim, "HETERO_CPU_ENGINE", False):
        for name in [n for n in sys.modules if n == "sgl_kernel" or n.startswith("sgl_kernel.")]:
            del sys.modules[name]
    registry = sys.modules.get("sglang_hetero_spec.cpu.ops")
    if registry is not None:
        registry.unregister()
    for entry in [e for e in sys.path_importer_cache if e.startswith(SHIM_DIR)]:
        del sys.path_importer_cache[entry]
    _saved = None


def _settings() -> dict[str, str]:
    previous = os.environ.get("PYTHONPATH")
    return {
        "PYTHONPATH": SHIM_DIR + (os.pathsep + previous if previous else ""),
        "SGLANG_USE_CPU_ENGINE": "1",
        # The first speculative step would otherwise compile for about 90 s.
        "TORCHDYNAMO_DISABLE": os.environ.get("TORCHDYNAMO_DISABLE", "1"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(physical_cores()),
        # By default libgomp's threads wait by spinning: with anything else on the same cores a step becomes 10 to 50
        # times slower (measured: 160 to 640 ms in place of 13 to 20). Sleeping at once costs microseconds.
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "0"),
    }


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()
