"""SGLang's entry point into this package (group `sglang.srt.plugins`). Runs in every process of a server."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable

from sglang_hetero_spec import SGLANG_VERSION
from sglang_hetero_spec.hooks import Hook

_problems: list[str] = []
_hooks: list[Hook] = []


def register() -> None:
    """Register HETERO and the hooks. Idempotent; does nothing but remember the reason where SGLang is another one.

    SGLang logs and swallows what a plugin raises, so nothing is raised here: `verify_hooks` tells, and a server
    that asks for HETERO is refused with it.
    """
    if _hooks or _problems:
        return
    problem = version_problem()
    if problem is not None:
        _problems.append(problem)
    from sglang_hetero_spec.algorithm import register_algorithm

    try:
        register_algorithm()
    except ValueError as error:
        _problems.append(str(error))
        return
    # With another SGLang only the hook that lets HETERO's name through to the check that refuses it.
    _register_hooks(all_hooks() if problem is None else all_hooks()[:1])


def version_problem() -> str | None:
    """What is wrong with the installed SGLang, or None."""
    try:
        installed = importlib.metadata.version("sglang")
    except importlib.metadata.PackageNotFoundError:
        return f"sglang is not installed; pip install sglang=={SGLANG_VERSION}"
    if installed.split("+")[0] != SGLANG_VERSION:
        return f"sglang {installed} is installed and this plugin is made for {SGLANG_VERSION}; install that version"
    return None


def all_hooks() -> tuple[Hook, ...]:
    """Every place where this package reaches into SGLang beyond its registry, in one list. The first is the one
    without which SGLang fails on a pool before it asks us anything."""
    from sglang_hetero_spec.cpu.hooks import HOOKS as CPU_HOOKS
    from sglang_hetero_spec.cuda.hooks import HOOKS as CUDA_HOOKS
    from sglang_hetero_spec.worker.hooks import HOOKS as WORKER_HOOKS

    return (*WORKER_HOOKS, *CPU_HOOKS, *CUDA_HOOKS)


def _register_hooks(hooks: tuple[Hook, ...]) -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    for hook in hooks:
        HookRegistry.register(hook.target, resolve(hook.function), HookType(hook.kind))
        _hooks.append(hook)


def resolve(function: str | Callable[..., object]) -> Callable[..., object]:
    if not isinstance(function, str):
        return function
    module, _, name = function.rpartition(".")
    return getattr(importlib.import_module(module), name)


def verify_hooks() -> list[str]:
    """What keeps HETERO from running in this process, each in one sentence; empty when all hooks took hold."""
    problems = list(_problems)
    if not problems and not _hooks:
        problems.append("the plugin was not loaded; check SGLANG_PLUGINS and that the package is installed")
    if not problems:
        from sglang.srt.plugins.hook_registry import HookRegistry

        problems += [
            f"the hook on {hook.target} did not take hold"
            for hook in _hooks
            if hook.target not in HookRegistry._patched
        ]
    return problems
