"""report.html of a run: one file that needs nothing else."""

from sglang_hetero_spec.bench.report.page import plots, render_page

__all__ = ["plots", "render_page"]
