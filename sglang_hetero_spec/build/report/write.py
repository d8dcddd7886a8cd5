"""`write_report`: one HTML file from a build's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sglang_hetero_spec.build.report.errors import ReportError
from sglang_hetero_spec.build.report.inputs import Inputs, read_inputs
from sglang_hetero_spec.build.report.page import render_page
from sglang_hetero_spec.files import write_whole

REPORT_NAME = "report.html"


@dataclass(frozen=True)
class WrittenReport:
    """Where the report is, how large it is, and what it was made from."""

    path: Path
    num_bytes: int
    inputs: Inputs


def write_report(
    folder: str | Path, out: str | Path | None = None, say: Callable[[str], None] = lambda words: None
) -> WrittenReport:
    """Write the report on the build in `folder` to `out` (default: report.html in it), whole or not at all.

    Only tasks.json must be there; each section says what it lacks. The same files give the same bytes. HeteroError in
    one sentence for a file that cannot be used, or cannot be written.
    """
    inputs = read_inputs(folder)
    path = Path(out) if out is not None else Path(folder) / REPORT_NAME
    data = render_page(inputs, say).encode("utf-8")
    write_whole(path, [data], ReportError)
    return WrittenReport(path, len(data), inputs)
