"""From a run to its page: every figure comes from the aggregate, the template only sets it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sglang_hetero_spec import __version__
from sglang_hetero_spec.bench.report.plot_accept import accept_lengths, by_position
from sglang_hetero_spec.bench.report.plot_speed import drift, ratios_by_load, ratios_by_task, speeds
from sglang_hetero_spec.bench.report.plot_time import distributions, shares
from sglang_hetero_spec.bench.report.style import Plot, styles
from sglang_hetero_spec.bench.report.tables import Table, tables
from sglang_hetero_spec.bench.results import words
from sglang_hetero_spec.bench.results.aggregate import BASES
from sglang_hetero_spec.bench.results.definitions import DEFINITIONS
from sglang_hetero_spec.bench.results.run_files import Run
from sglang_hetero_spec.bench.speed_model import render
from sglang_hetero_spec.build import report as build_report
from sglang_hetero_spec.build.report import text

_TEMPLATES = Path(__file__).parent / "templates"
_HOUSE = Path(build_report.__file__).parent / "templates"
_ROUTED = "hetero"
_MOST_DIFFERENCES = 20


@dataclass(frozen=True)
class SettingView:
    name: str
    title: str
    tables: tuple[Table, ...]


def render_page(run: Run, found: dict[str, Any]) -> str:
    """The page as HTML. found: the aggregate, with its verdict."""
    environment = Environment(
        loader=FileSystemLoader([_TEMPLATES, _HOUSE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clean=text.clean, shortened=text.shortened, plural=text.plural, digits=words.digits)
    environment.filters.update(times=text.times)
    return environment.get_template("run.html.jinja").render(_page(run, found))


def plots(run: Run, found: dict[str, Any]) -> dict[str, Plot]:
    """All plots that the run has figures for, by name."""
    shown = styles(found["arms"])
    settings = [name for name, item in found["settings"].items() if item["arms"]]
    routed = _routed(found)
    made = [speeds(found, shown), ratios_by_load(found, shown), drift(found, run.blocks, shown)]
    made += [distributions(run, found, shown), shares(found, shown)]
    if settings:
        made += [accept_lengths(found, shown, settings[0]), by_position(found, shown, settings[0], routed)]
    if routed:
        bases = [name for name in (found["baseline"], *BASES) if name in found["arms"] and name != routed]
        made.append(ratios_by_task(found, shown, routed, bases))
    return {plot.name: plot for plot in made if plot}


def _page(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    metadata = run.metadata
    return {
        "version": __version__,
        "found": found,
        "plots": plots(run, found),
        "settings": [
            SettingView(name, words.setting_title(name), tuple(tables(found, name)))
            for name, item in found["settings"].items()
            if item["arms"]
        ],
        "tiles": _tiles(found),
        "routed": _routed(found),
        "arms": _arms(metadata, found),
        "facts": _facts(metadata),
        "command": words.command(metadata),
        "definitions": DEFINITIONS,
        "metadata": text.clean(json.dumps(metadata, indent=2, ensure_ascii=False)),
        "model": _model(found.get("speed_model")),
        "differences": list(run.differences or ())[:_MOST_DIFFERENCES],
    }


def _model(section: dict[str, Any] | None) -> dict[str, Any] | None:
    """{"why_not": a sentence or None, "tables": what bench/speed_model shows}; None without that part."""
    if section is None:
        return None
    if set(section) == {"why_not"}:
        return {"why_not": section["why_not"], "tables": []}
    return {"why_not": None, "tables": render.tables(section)}


@dataclass(frozen=True)
class Tile:
    value: str
    words: str
    soft: str


def _tiles(found: dict[str, Any]) -> list[Tile]:
    """The ratios that matter, in the first setting and in the last one."""
    routed = _routed(found)
    every = [name for name, item in found["settings"].items() if item["ratios"]]
    names = [name for name in every if name.startswith("c")] or every  # what arrives bounds the speed of others
    tiles = []
    for setting in dict.fromkeys(names[:1] + names[-1:]):
        for base in (found["baseline"], *BASES):
            item = found["settings"][setting]["ratios"].get(f"{routed}/{base}")
            speed = item["all"]["server_tokens_per_second"] if item else None
            if speed and speed["value"] is not None:
                where = words.setting_title(setting)
                soft = where if speed["low"] is None else f"{where}; {speed['low']:.2f} to {speed['high']:.2f}"
                tiles.append(Tile(text.times(speed["value"]), f"the speed of {base}", soft))
    return tiles


def _routed(found: dict[str, Any]) -> str | None:
    """The arm that the page is about."""
    arms = found["arms"]
    routed = next((arm for arm in arms if arm.startswith(_ROUTED)), None)
    return _ROUTED if _ROUTED in arms else routed


def _arms(metadata: dict[str, Any], found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, title, definition)."""
    listed = metadata.get("arms")
    items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    meant = {str(item.get("name")): str(item.get("definition") or "") for item in items}
    titles = words.arm_titles(metadata, found["arms"])
    return [(arm, titles[arm], meant.get(arm, "")) for arm in found["arms"]]


def _facts(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, words), of what is known."""
    workload = metadata.get("workload") if isinstance(metadata.get("workload"), dict) else {}
    tasks = workload.get("tasks") if isinstance(workload.get("tasks"), dict) else {}
    versions = metadata.get("versions") if isinstance(metadata.get("versions"), dict) else {}
    dirty = {True: "", False: ", with changes not committed"}.get(metadata.get("clean_tree"), ", not known if clean")
    rows = [
        ("target", words.target(metadata)),
        ("what it stands for", words.note(metadata)),
        ("machine", words.machine(metadata)),
        ("workload", f"{workload.get('name', '')}, {workload.get('num_prompts', '?')} prompts"),
        ("prompts of each task", ", ".join(f"{task} {number}" for task, number in tasks.items())),
        ("answers", f"at most {workload.get('max_new_tokens')} tokens, temperature {workload.get('temperature')}"),
        ("repetitions", str(metadata.get("repetitions", ""))),
        ("started", str(metadata.get("started", ""))),
        ("commit", f"{metadata.get('commit') or 'not known'}{dirty}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(what, text.clean(said)) for what, said in rows if said]
