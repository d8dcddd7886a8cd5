"""What is right and wrong with this installation: a list of checks, none of which may raise.

Everything that imports torch or sglang runs in a child process (`doctor_probe`), so that a broken
installation is a line in the table and not a crash of the doctor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

from sglang_hetero_spec import SGLANG_VERSION, __version__
from sglang_hetero_spec.doctor_machine import available_memory, cpu_flags, usable_cores
from sglang_hetero_spec.doctor_probe import ProbeResult, probe

DISTRIBUTION, PLUGIN_GROUP, PLUGIN_NAME = "sglang-hetero-spec", "sglang.srt.plugins", "hetero_spec"
PLUGIN_VALUE = "sglang_hetero_spec.plugin:register"
REINSTALL = f"install {DISTRIBUTION} again"
MIN_PYTHON, MIN_MEMORY_GIB, MIN_CORES = (3, 11), 4.0, 2

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it is, and what to do where it is not ok."""

    name: str
    status: Status
    detail: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def examine(pool: str | None = None, run_probe: Callable[[], ProbeResult] = probe) -> list[Check]:
    """All checks, in the order of the table. Takes about 20 s: a child imports SGLang."""
    checks = [_guarded(name, function) for name, function in _LIGHT]
    if _installed("sglang") is None:
        checks.append(Check("SGLang's inside", "fail", "not looked at: SGLang is not installed", _install_sglang()))
    else:
        checks += _probe_checks(run_probe)
    checks += [_guarded(name, function) for name, function in _MACHINE]
    if pool is not None:
        checks.append(_guarded("pool", lambda: _pool(pool)))
    return checks


def _guarded(name: str, function: Callable[[], Check]) -> Check:
    try:
        return function()
    except Exception as error:
        return Check(name, "fail", f"the check itself failed ({type(error).__name__}: {error})", REINSTALL)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MIN_PYTHON:
        return Check("Python", "fail", version, "use Python 3.11 or newer")
    return Check("Python", "ok", version)


def _sglang() -> Check:
    installed = _installed("sglang")
    if installed is None:
        return Check("SGLang", "fail", "not installed", _install_sglang())
    if installed.split("+")[0] != SGLANG_VERSION:  # 0.5.23+cpu is 0.5.23
        return Check("SGLang", "fail", f"{installed}, but this version needs {SGLANG_VERSION}", _install_sglang())
    return Check("SGLang", "ok", installed)


def _install_sglang() -> str:
    return f"pip install sglang=={SGLANG_VERSION}"


def _entry_point() -> Check:
    name = "plugin entry point"
    found = [point for point in metadata.entry_points(group=PLUGIN_GROUP) if point.name == PLUGIN_NAME]
    if not found:
        return Check(name, "fail", f"no `{PLUGIN_NAME}` in the group {PLUGIN_GROUP}", REINSTALL)
    wrong = sorted({point.value for point in found} - {PLUGIN_VALUE})
    if wrong:
        remedy = "uninstall the other package of that name"
        return Check(name, "fail", f"`{PLUGIN_NAME}` is {', '.join(wrong)}, not {PLUGIN_VALUE}", remedy)
    return Check(name, "ok", f"{DISTRIBUTION} {__version__}: {PLUGIN_NAME} = {PLUGIN_VALUE}")


def _whitelist() -> Check:
    name, value = "SGLANG_PLUGINS", os.environ.get("SGLANG_PLUGINS", "")
    allowed = [part.strip() for part in value.split(",") if part.strip()]
    if not allowed:
        return Check(name, "ok", "not set: all plugins are loaded")
    if PLUGIN_NAME in allowed:
        return Check(name, "ok", f"{value}, which includes {PLUGIN_NAME}")
    remedy = f"export SGLANG_PLUGINS={','.join([*allowed, PLUGIN_NAME])}, or unset it"
    return Check(name, "fail", f"{value}, which keeps {PLUGIN_NAME} out", remedy)


def _memory() -> Check:
    free = available_memory()
    if free is None:
        return Check("memory", "warn", "unknown on this system", f"have at least {MIN_MEMORY_GIB:g} GiB free")
    detail = f"{free / 2**30:.1f} GiB available"
    if free < MIN_MEMORY_GIB * 2**30:
        return Check("memory", "warn", detail, f"free some: an engine wants {MIN_MEMORY_GIB:g} GiB and its weights")
    return Check("memory", "ok", detail)


def _cores() -> Check:
    cores, setting = usable_cores(), os.environ.get("OMP_NUM_THREADS")
    if setting is not None and setting.isdigit() and int(setting) > cores:
        detail = f"{cores} usable, but OMP_NUM_THREADS is {setting}"
        return Check("cores", "warn", detail, f"export OMP_NUM_THREADS={cores}: threads in excess wait for each other")
    if cores < MIN_CORES:
        return Check("cores", "warn", f"{cores} usable", f"have {MIN_CORES}: server and tokenizer run side by side")
    return Check("cores", "ok", f"{cores} usable")


def _amx() -> Check:
    flags = cpu_flags()
    if flags is None:
        return Check("AMX", "ok", "unknown on this system; the CPU engine does not need it")
    has = "there" if "amx_tile" in flags else "absent; the CPU engine does not need it"
    return Check("AMX", "ok", has)


def _pool(path: str) -> Check:
    from sglang_hetero_spec.commands.checked import checked_pool
    from sglang_hetero_spec.pool import PoolError

    try:
        pool = checked_pool(path)
    except PoolError as error:
        wrong, _, remedy = str(error).rpartition(";")
        return Check("pool", "fail", wrong or str(error), remedy.strip() or "correct the pool")
    return Check("pool", "ok", f"{pool.root}: {len(pool.drafters)} drafters, {len(pool.tasks)} tasks")


def _probe_checks(run_probe: Callable[[], ProbeResult]) -> Iterator[Check]:
    """The child's findings as checks; a child that died is one failed check."""
    try:
        result = run_probe()
        yield from (_checked(finding) for finding in result.findings)
        if result.error is not None:
            yield Check("SGLang's inside", "fail", result.error, f"{_install_sglang()} in a fresh environment")
    except Exception as error:
        yield Check("SGLang's inside", "fail", f"could not look ({type(error).__name__}: {error})", REINSTALL)


def _checked(finding: dict[str, Any]) -> Check:
    return Check(finding["name"], finding["status"], finding["detail"], finding.get("remedy", ""))


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


_LIGHT = (
    ("Python", _python),
    ("SGLang", _sglang),
    ("plugin entry point", _entry_point),
    ("SGLANG_PLUGINS", _whitelist),
)
_MACHINE = (("AMX", _amx), ("memory", _memory), ("cores", _cores))
