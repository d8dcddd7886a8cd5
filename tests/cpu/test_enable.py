"""Switching the engine on and off: what it changes, that nothing stays behind, what children inherit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sglang_hetero_spec import cpu
from sglang_hetero_spec.cpu import engine, threads
from sglang_hetero_spec.cpu.hooks import HOOKS

torch = pytest.importorskip("torch")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU engine does nothing where CUDA is available")


OURS = ("PYTHONPATH", "SGLANG_USE_CPU_ENGINE", "TORCHDYNAMO_DISABLE", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")


def run_command(command, **env):
    """Run in a fresh process without our environment; returns its output."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    result = subprocess.run(command, capture_output=True, text=True, env={**clean, **env}, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def run(code, **env):
    return run_command([sys.executable, "-c", code], **env)


@no_gpu
def test_disable_leaves_nothing_behind():
    code = """
import os, sys
from sglang_hetero_spec import cpu
import torch
before = dict(os.environ), list(sys.path), set(sys.modules)
for _ in range(2):
    assert cpu.enable() and cpu.enable() and cpu.is_enabled()
    import sgl_kernel, sgl_kernel.speculative
    assert sgl_kernel.HETERO_CPU_ENGINE and hasattr(torch.ops.sgl_kernel, "decode_attention_cpu")
    cpu.disable()
    cpu.disable()
    assert not cpu.is_enabled()
    assert (dict(os.environ), list(sys.path)) == before[:2]
    left = {m for m in sys.modules if m.startswith("sgl_kernel")}
    assert not left, left
    assert not hasattr(torch.ops.sgl_kernel, "decode_attention_cpu")
    assert not any("cpu/shim" in entry for entry in sys.path_importer_cache)
print("clean")
"""
    assert "clean" in run(code)


@no_gpu
def test_children_inherit_through_the_environment(tmp_path):
    code = """
import multiprocessing, os
from sglang_hetero_spec import cpu

def child(queue):
    import sgl_kernel
    from sglang_hetero_spec import cpu
    queue.put((sgl_kernel.HETERO_CPU_ENGINE, cpu.is_enabled(), os.environ["TORCHDYNAMO_DISABLE"]))

if __name__ == "__main__":
    cpu.enable()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print(queue.get(timeout=60))
    process.join()
"""
    # Spawning needs a script on disk: a child imports its parent's main module.
    script = tmp_path / "parent.py"
    script.write_text(code)
    assert "(True, True, '1')" in run_command([sys.executable, str(script)])


@no_gpu
def test_too_late_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sglang.srt.utils.common", sys)
    monkeypatch.delenv("SGLANG_USE_CPU_ENGINE", raising=False)
    with pytest.raises(cpu.CpuEngineError, match="call enable\\(\\) first"):
        cpu.enable()


def test_nothing_happens_with_cuda(monkeypatch):
    monkeypatch.setattr(engine, "_cuda_available", lambda: True)
    monkeypatch.delenv("SGLANG_USE_CPU_ENGINE", raising=False)
    before = dict(os.environ), list(sys.path)
    assert cpu.enable() is False
    assert (dict(os.environ), list(sys.path)) == before


@no_gpu
def test_the_users_settings_win():
    code = """
import os
from sglang_hetero_spec import cpu
cpu.enable()
print(os.environ["OMP_NUM_THREADS"], os.environ["TORCHDYNAMO_DISABLE"], os.environ["PYTHONPATH"].split(os.pathsep)[1])
"""
    out = run(code, OMP_NUM_THREADS="3", TORCHDYNAMO_DISABLE="0", PYTHONPATH="/somewhere")
    assert out.split() == ["3", "0", "/somewhere"]


def test_a_real_package_that_loads_is_preferred(tmp_path):
    real = tmp_path / "sgl_kernel"
    real.mkdir()
    (real / "__init__.py").write_text(
        "import torch\n"
        "lib = torch.library.Library('sgl_kernel', 'FRAGMENT')\n"
        "lib.define('extend_attention_cpu(Tensor x) -> ()')\n"
        "REAL = True\n"
    )
    code = """
from sglang_hetero_spec import cpu
cpu.enable()
import sgl_kernel
print(getattr(sgl_kernel, "REAL", False), getattr(sgl_kernel, "HETERO_CPU_ENGINE", False))
"""
    assert run(code, PYTHONPATH=str(tmp_path)).split() == ["True", "False"]
    (real / "__init__.py").write_text("raise ImportError('libcuda.so.1: cannot open shared object file')\n")
    assert run(code, PYTHONPATH=str(tmp_path)).split() == ["False", "True"]


def test_threads_are_physical_cores_within_affinity_and_quota(monkeypatch):
    files = {
        "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0,2",
        "/sys/devices/system/cpu/cpu2/topology/thread_siblings_list": "0,2",
        "/sys/devices/system/cpu/cpu1/topology/thread_siblings_list": "1,3",
    }
    monkeypatch.setattr(threads, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert threads.physical_cores() == 2
    files["/sys/fs/cgroup/cpu.max"] = "150000 100000"
    assert threads.physical_cores() == 2
    files["/sys/fs/cgroup/cpu.max"] = "50000 100000"
    assert threads.physical_cores() == 1
    files["/sys/fs/cgroup/cpu.max"] = "max 100000"
    assert threads.physical_cores() == 2


class View:
    device, attention_backend = "cpu", "intel_amx"


def test_hook_acts_only_with_our_ops(monkeypatch):
    from sglang_hetero_spec.cpu.hooks import keep_intel_amx_backend

    upstream = lambda view: {"attention_backend": "torch_native"}  # noqa: E731
    monkeypatch.delitem(sys.modules, "sgl_kernel", raising=False)
    assert keep_intel_amx_backend(upstream, View()) == {"attention_backend": "torch_native"}
    shim = type(sys)("sgl_kernel")
    shim.HETERO_CPU_ENGINE = True
    monkeypatch.setitem(sys.modules, "sgl_kernel", shim)
    assert keep_intel_amx_backend(upstream, View()) == {}
    other = View()
    other.attention_backend = "triton"
    assert keep_intel_amx_backend(upstream, other) == {"attention_backend": "torch_native"}


def test_hook_table_is_complete():
    for hook in HOOKS:
        assert hook.kind in ("before", "after", "around", "replace")
        assert hook.why and hook.retire and hook.target.startswith("sglang.")
