"""report.html: what a build found and how good it is, one file that needs nothing else."""

from sglang_hetero_spec.build.report.errors import ReportError
from sglang_hetero_spec.build.report.write import WrittenReport, write_report

__all__ = ["ReportError", "WrittenReport", "write_report"]
