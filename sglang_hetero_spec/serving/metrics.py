"""HETERO's counters in the text of a server's /metrics (worker/metrics.py makes them)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

DRAFT_SECONDS = "sglang:hetero_draft_seconds_total"
VERIFY_SECONDS = "sglang:hetero_verify_seconds_total"
HOST_SECONDS = "sglang:hetero_host_seconds_total"
VERIFY_FORWARDS = "sglang:hetero_verify_forwards_total"
ROUTE_SECONDS, ROUTES = "sglang:hetero_route_seconds_sum", "sglang:hetero_route_seconds_count"


def samples(text: str, names: Collection[str]) -> Iterator[Sample]:
    """Those of these names, one for each set of labels. text: of /metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(text):
        yield from (sample for sample in family.samples if sample.name in names)
