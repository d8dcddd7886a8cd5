"""What a server's /metrics says, as numbers."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers import Server

Labels = frozenset[tuple[str, str]]


def read_counters(server: Server, prefix: str = "sglang:hetero_") -> dict[str, dict[Labels, float]]:
    """Sample name -> labels -> value, for all metrics whose names start with `prefix`."""
    response = server.get("/metrics")
    response.raise_for_status()
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            if sample.name.startswith(prefix):
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def total(counters: dict[str, dict[Labels, float]], name: str, **labels: str) -> float:
    """The sum over all samples of `name` that have these labels."""
    wanted = set(labels.items())
    return sum(value for found, value in counters.get(name, {}).items() if wanted <= found)
