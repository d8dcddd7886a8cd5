"""How long routing takes inside the running server, per request, by prompt length, as text and as token ids.

    python -m benchmarks.route_latency [--requests 300] [--pool DIR --target DIR]

Starts `hetero-spec serve` with the demo pool and reads the histogram `sglang:hetero_route_seconds` before and after
each group of requests. Prompts longer than the target's context are cut by SGLang (--allow-auto-truncate): as text
the router still gets all of it, as ids what SGLang leaves. Exit code 1 if a median is above 0.2 ms or a 99th
percentile above 1 ms.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

from tests.server.counters import read_counters
from tests.support.servers import Server, running_server

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "sglang_hetero_spec" / "demo" / "assets"
EXTRA = ("--enable-metrics", "--allow-auto-truncate", "--mem-fraction-static", "0.8")
LENGTHS = (10, 100, 1_000, 10_000, 100_000)
MEDIAN_LIMIT, P99_LIMIT = 0.2e-3, 1e-3
NAME = "sglang:hetero_route_seconds"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300, help="per length and form (default: 300)")
    parser.add_argument("--pool", type=Path, default=ASSETS / "pool")
    parser.add_argument("--target", type=Path, default=ASSETS / "target")
    args = parser.parse_args()
    options = ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path", str(args.pool))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with running_server(args.target, log, *options, *EXTRA) as server:
            rows = [measure(server, args, length, form) for form in ("text", "ids") for length in LENGTHS]
    print(f"{'form':5} {'characters':>10} {'requests':>8} {'mean ms':>8} {'median ms':>10} {'p99 ms':>8}")
    for row in rows:
        print("{form:5} {length:10,} {count:8.0f} {mean:8.3f} {median:10.3f} {p99:8.3f}".format(**row))
    return int(any(row["median"] > MEDIAN_LIMIT * 1e3 or row["p99"] > P99_LIMIT * 1e3 for row in rows))


def make_prompts(length: int, count: int) -> list[str]:
    """`count` different texts of `length` characters, from the pool's held-out prompts."""
    lines = [json.loads(line)["prompt"] for line in (ASSETS / "heldout.jsonl").read_text().splitlines()]
    draw = random.Random(length)
    prompts = []
    for _ in range(count):
        text = ""
        while len(text) < length:
            text += draw.choice(lines)
        prompts.append(text[:length])
    return prompts


def encode(target: Path, prompts: list[str]) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(target)
    return [tokenizer.encode(prompt) for prompt in prompts]


def histogram(server: Server) -> tuple[dict[float, float], float]:
    """Requests up to each limit (seconds), and the sum of all seconds; over all sources."""
    counters = read_counters(server, NAME)
    limits: dict[float, float] = {}
    for labels, value in counters.get(f"{NAME}_bucket", {}).items():
        limit = float(dict(labels)["le"])
        limits[limit] = limits.get(limit, 0.0) + value
    return limits, sum(counters.get(f"{NAME}_sum", {}).values())


def quantile(cumulative: dict[float, float], share: float) -> float:
    """As Prometheus does it: linear within the bucket, the last finite limit beyond it."""
    rank = share * cumulative[float("inf")]
    low, below = 0.0, 0.0
    for limit in sorted(cumulative):
        if cumulative[limit] >= rank:
            if limit == float("inf"):
                return low
            return low + (limit - low) * (rank - below) / (cumulative[limit] - below)
        low, below = limit, cumulative[limit]
    raise AssertionError("the last bucket holds all")


def measure(server: Server, args: argparse.Namespace, length: int, form: str) -> dict:
    prompts = make_prompts(length, args.requests)
    if form == "ids":
        prompts = encode(args.target, prompts)
    limits, seconds = histogram(server)
    server.generate_all(prompts, concurrency=4, sampling_params={"max_new_tokens": 1})
    new_limits, new_seconds = histogram(server)
    changes = {limit: new_limits[limit] - limits.get(limit, 0.0) for limit in new_limits}
    count = changes[float("inf")]
    return {
        "form": form,
        "length": length,
        "count": count,
        "mean": 1e3 * (new_seconds - seconds) / count,
        "median": 1e3 * quantile(changes, 0.5),
        "p99": 1e3 * quantile(changes, 0.99),
    }


if __name__ == "__main__":
    sys.exit(main())
