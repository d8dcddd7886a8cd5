"""SGLang on a machine without CUDA and without AMX: our PyTorch ops where SGLang expects its CPU wheel."""

from sglang_hetero_spec.cpu.engine import CpuEngineError, disable, enable, is_enabled

__all__ = ["CpuEngineError", "disable", "enable", "is_enabled"]
