"""`finish` makes the files of a finished run from its records, `check` finds whether they still follow from them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.results.aggregate import aggregate
from sglang_hetero_spec.bench.results.citable import reasons
from sglang_hetero_spec.bench.results.run_files import (
    AGGREGATE_NAME,
    RECORD_NAMES,
    REPORT_NAME,
    SUMMARY_NAME,
    Run,
    read_object,
    read_run,
)
from sglang_hetero_spec.bench.results.summary import summary
from sglang_hetero_spec.bench.speed_model.section import section
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_whole

_DIGITS = 9
_TOLERANCE = 1e-6
_NOT_RECOMPUTED = ("speed_model", "definitions", "records", "citable", "why_not")


@dataclass(frozen=True)
class Finished:
    """aggregate: as in aggregate.json. why_not: one sentence for each reason against citing. summary: Markdown."""

    aggregate: dict[str, Any]
    citable: bool
    why_not: list[str]
    summary: str


def finish(run_folder: str | Path) -> Finished:
    """Write aggregate.json, summary.md and report.html from the records in `run_folder`; BenchError in one sentence for
    a record that cannot be read, or a file that cannot be written. metadata.json must be in its last state."""
    run = read_run(run_folder)
    finished = judged(run, rounded(aggregate(run)) | {"speed_model": speed_model(run)}, reasons(run))
    text = json.dumps(finished.aggregate, indent=1, ensure_ascii=True, allow_nan=False)
    write_whole(run.folder / AGGREGATE_NAME, [text.encode(), b"\n"], BenchError)
    write_whole(run.folder / SUMMARY_NAME, [finished.summary.encode("utf-8")], BenchError)
    _write_page(run, finished)
    return finished


def speed_model(run: Run) -> dict[str, Any]:
    """The section of bench/speed_model; {"why_not": a sentence} where it cannot say anything of this run."""
    try:
        return rounded(section(run.folder), unknown_is_null=True)
    except HeteroError as error:
        return {"why_not": str(error)}


def _write_page(run: Run, finished: Finished) -> None:
    """Apart, since matplotlib takes a second to import."""
    from sglang_hetero_spec.bench.report import render_page

    page = render_page(run, finished.aggregate).encode("utf-8")
    write_whole(run.folder / REPORT_NAME, [page], BenchError)


def check(run_folder: str | Path) -> Finished:
    """Compute everything anew, write nothing: citable only where the records allow it and the aggregate.json and the
    summary.md that are there follow from them. BenchError where a file is missing or broken."""
    run = read_run(run_folder)
    stored = read_object(run.folder / AGGREGATE_NAME)
    figures = rounded(aggregate(run))
    fresh = judged(run, figures, reasons(run))
    return judged(run, figures, [*fresh.why_not, *_tampered(run, stored, fresh)])


def judged(run: Run, figures: dict[str, Any], why_not: list[str]) -> Finished:
    """The figures with the verdict."""
    found = figures | {"citable": not why_not, "why_not": why_not}
    return Finished(found, not why_not, why_not, summary(run.metadata, found, why_not))


def _tampered(run: Run, stored: dict[str, Any], fresh: Finished) -> Iterator[str]:
    hashes = stored.get("records") if isinstance(stored.get("records"), dict) else {}
    for name in RECORD_NAMES:
        if hashes.get(name) != run.sha256[name]:
            yield f"{name} is not the file that {AGGREGATE_NAME} was made from (its SHA-256 differs)."
    figures = {key: value for key, value in fresh.aggregate.items() if key not in _NOT_RECOMPUTED}
    others = {key: value for key, value in stored.items() if key not in _NOT_RECOMPUTED}
    place = first_difference(figures, others)
    if place is not None:
        yield f"{AGGREGATE_NAME} does not follow from the records (the first difference is at {place or 'its top'})."
    verdict = fresh.citable, fresh.why_not
    if (stored.get("citable"), stored.get("why_not")) != verdict:
        yield f"The verdict in {AGGREGATE_NAME} is not the one that follows from the records."
    path = run.folder / SUMMARY_NAME
    if not path.is_file():
        yield f"{SUMMARY_NAME} is missing."
    elif path.read_bytes() != fresh.summary.encode("utf-8"):
        yield f"{SUMMARY_NAME} does not follow from the records."


def first_difference(wanted: Any, found: Any, place: str = "") -> str | None:
    """Where two values of JSON differ by more than the last digits; None if they do not."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        if wanted.keys() != found.keys():
            return f"{place}.{min(wanted.keys() ^ found.keys())}".lstrip(".")
        places = [first_difference(wanted[key], found[key], f"{place}.{key}".lstrip(".")) for key in wanted]
        return next((item for item in places if item is not None), None)
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        places = [first_difference(a, b, f"{place}[{at}]") for at, (a, b) in enumerate(zip(wanted, found, strict=True))]
        return next((item for item in places if item is not None), None)
    if isinstance(wanted, float) and isinstance(found, int | float) and not isinstance(found, bool):
        return None if math.isclose(wanted, found, rel_tol=_TOLERANCE, abs_tol=1e-12) else place
    return None if type(wanted) is type(found) and wanted == found else place


def rounded(value: Any, unknown_is_null: bool = False) -> Any:
    """Floats to 9 significant digits. ValueError for what JSON does not know, or null for it."""
    if isinstance(value, dict):
        return {key: rounded(item, unknown_is_null) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, unknown_is_null) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            if unknown_is_null:
                return None
            raise ValueError("a figure is not a finite number")
        return float(f"{value:.{_DIGITS}g}")
    return value
