"""Figures of aggregate.json as words, and the facts of metadata.json; "" for what is not known."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.report.text import clean, size

_POISSON = re.compile(r"r([0-9.]+)")
_FIXED = re.compile(r"c([0-9]+)")


def digits(value: float | None) -> str:
    """Three significant digits, thousands whole: 0.123, 1.23, 12.3, 1,234."""
    if value is None:
        return ""
    if value and (abs(value) < 0.001 or abs(value) >= 1e7):
        return f"{value:.2e}"
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{places}f}"


def fixed(value: float | None) -> str:
    """Two decimals: accept lengths and ratios."""
    return "" if value is None else f"{value:.2f}"


def with_interval(item: dict[str, Any], write: Any = fixed) -> str:
    """1.25 (1.21-1.29); without an interval the value alone."""
    if item["value"] is None:
        return ""
    if item["low"] is None:
        return write(item["value"])
    return f"{write(item['value'])} ({write(item['low'])}-{write(item['high'])})"


def repetitions(item: dict[str, Any], write: Any = fixed) -> str:
    """1.20 to 1.31: the smallest and the largest repetition; "" of fewer than two."""
    known = [value for value in item["by_repetition"] if value is not None]
    return f"{write(min(known))} to {write(max(known))}" if len(known) > 1 else ""


def same_output(item: dict[str, Any]) -> str:
    """yes; no (3 of 54); "" where it is not known."""
    if item["value"] is None:
        return ""
    return "yes" if item["value"] else f"no ({item['differing']} of {item['compared']})"


def setting_title(setting: str) -> str:
    """c4: 4 in flight; r2.5: 2.5 requests/s."""
    if fixed_load := _FIXED.fullmatch(setting):
        return f"{fixed_load[1]} in flight"
    if poisson := _POISSON.fullmatch(setting):
        return f"{poisson[1]} requests/s (Poisson)"
    return clean(setting)


def machine(metadata: dict[str, Any]) -> str:
    """The machine in one line."""
    found = metadata.get("machine")
    if not isinstance(found, dict):
        return ""
    parts = [_text(found.get("processor"))]
    parts.append(f"{found['cores']} cores" if isinstance(found.get("cores"), int) else "")
    parts.append(f"{found['threads']} engine threads" if isinstance(found.get("threads"), int) else "")
    if found.get("device") not in (None, "cpu"):
        parts.insert(0, _text(found["device"]))
    parts += [_text(found.get("dtype"))]
    parts += [f"{title} {_text(found[key])}" for key, title in _SOFTWARE if found.get(key)]
    return ", ".join(part for part in parts if part)


_SOFTWARE = (("sglang", "SGLang"), ("torch", "torch"), ("python", "Python"))


def target(metadata: dict[str, Any]) -> str:
    """The target's name and size."""
    found = metadata.get("target")
    if not isinstance(found, dict):
        return ""
    name = Path(_text(found.get("path"))).name
    params = found.get("num_params")
    return f"{name} ({size(params)} parameters)" if isinstance(params, int) else name


def note(metadata: dict[str, Any]) -> str:
    """What the target stands for, where it is not what it seems."""
    found = metadata.get("target")
    return _text(found.get("note")).removeprefix("Target: ") if isinstance(found, dict) else ""


def command(metadata: dict[str, Any]) -> str:
    """The command that makes the run again."""
    found = metadata.get("command")
    if not isinstance(found, list) or not found:
        return ""
    words = [str(word) for word in found]
    return clean(shlex.join(words if words[0] != "bench" else ["hetero-spec", *words]))


def arm_titles(metadata: dict[str, Any], arms: list[str]) -> dict[str, str]:
    """Names of the arms for people."""
    listed = metadata.get("arms")
    items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    named = {str(item.get("name")): _text(item.get("title")) for item in items}
    return {arm: named.get(arm) or arm for arm in arms}


def _text(value: Any) -> str:
    return "" if value is None else " ".join(clean(str(value)).split())
