"""Stands in for SGLang's compiled kernels: the real package where it loads and fits, otherwise our PyTorch ops.

SGLang imports this in every process while its own modules load, before any plugin. Nothing here may import sglang.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

_SHIM_DIR = str(Path(__file__).resolve().parent.parent)
_NAME = "sgl_kernel"


def _find_real():
    elsewhere = [entry for entry in sys.path if str(Path(entry or ".").resolve()) != _SHIM_DIR]
    return importlib.machinery.PathFinder.find_spec(_NAME, elsewhere)


def _forget(kept) -> None:
    for name in [n for n in sys.modules if n == _NAME or n.startswith(_NAME + ".")]:
        del sys.modules[name]
    sys.modules[_NAME] = kept


def _load_real() -> bool:
    """Put the installed sgl_kernel in our place if it loads here and has what this machine needs."""
    import torch

    spec = _find_real()
    if spec is None or spec.loader is None:
        return False
    # Without a GPU the CUDA wheel only costs the seconds that its failing import takes.
    if not torch.cuda.is_available() and Path(spec.origin).parent.joinpath("sm90").exists():
        return False
    ours = sys.modules[_NAME]
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    try:
        spec.loader.exec_module(module)
        if torch.cuda.is_available() or hasattr(torch.ops.sgl_kernel, "extend_attention_cpu"):
            return True
    except (ImportError, OSError, RuntimeError, AttributeError):
        pass
    _forget(ours)
    return False


if not _load_real():
    from sglang_hetero_spec.cpu import ops as _ops

    HETERO_CPU_ENGINE = True
    __version__ = "0.0.0+hetero"
    globals().update(_ops.register())
