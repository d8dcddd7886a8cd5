"""What each column means: one table for aggregate.json, summary.md and report.html."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Definition:
    """title: the column's heading. unit: "" for a pure number. meaning: what it is, and over what it is taken."""

    title: str
    unit: str
    meaning: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


DEFINITIONS = {
    "requests": Definition("requests", "", "answers on record, all repetitions together"),
    "prompts": Definition("prompts", "", "different prompts among them"),
    "completion_tokens": Definition("completion tokens", "tokens", "sum over the requests, as the server counts them"),
    "verify_steps": Definition("verify steps", "", "forwards of the target that checked drafts, summed over requests"),
    "accept_length": Definition(
        "accept length",
        "tokens a step",
        "completion tokens / verify steps: the tokens that one forward of the target yields, the bonus token included",
    ),
    "accept_rate": Definition(
        "accept rate", "", "correct drafts / proposed drafts: without the bonus token, of what was really proposed"
    ),
    "accept_rate_by_position": Definition(
        "accept rate by position",
        "",
        "of the verify steps that found the first i - 1 drafts right, the share that found the i-th right"
        " too; a step that proposed fewer than i drafts counts as not right",
    ),
    "server_tokens_per_second": Definition(
        "tokens/s of the server",
        "tokens/s",
        "completion tokens of all requests / wall time of their blocks; the interval is over repetitions. With requests"
        " that arrive at a given rate it cannot exceed what arrives",
    ),
    "request_tokens_per_second": Definition(
        "tokens/s of one user",
        "tokens/s",
        "completion tokens / sum of the latencies of the requests: the speed of one request among the mixed traffic",
    ),
    "ttft": Definition("time to first token", "s", "from sending the request to the first streamed token"),
    "inter_token": Definition(
        "inter-token latency",
        "s",
        "time between two chunks / tokens of the later one, each token counted once; from the second chunk on",
    ),
    "chunk_gap": Definition(
        "time between chunks",
        "s",
        "how long a reader waits for the next words, however many tokens they are; from the second chunk on",
    ),
    "latency": Definition("latency", "s", "from sending the request to its last byte"),
    "p50": Definition("p50", "", "the smallest value that at least half of them do not exceed"),
    "p99": Definition(
        "p99",
        "",
        "the smallest value that at least 99% of them do not exceed: of fewer than 100, the largest; it has no"
        " interval",
    ),
    "draft_share": Definition(
        "draft share", "", "time in which drafters proposed / time of all steps (drafting, target's forward, host)"
    ),
    "target_share": Definition("target share", "", "time of the target's forwards of verify steps / time of all steps"),
    "host_share": Definition(
        "host share",
        "",
        "rest of the steps (splitting, merging, masks, bookkeeping, accepting, committing) / time of all steps",
    ),
    "step_seconds": Definition("time of a step", "s", "time of all steps / target forwards of verify steps"),
    "host_step_seconds": Definition("host time of a step", "s", "the host's share of it"),
    "route_seconds": Definition("router time", "s", "time in the router / routed requests"),
    "kv_bytes": Definition("KV memory", "bytes", "of the server's KV cache, the drafters' part included"),
    "kv_used_tokens": Definition("KV tokens used", "tokens", "the most tokens seen in it at one time"),
    "draft_seconds_share": Definition("share of drafting", "", "this drafter's part of the time of all drafters"),
    "identical": Definition(
        "same output",
        "",
        "the token ids of every answer in every repetition are those of the baseline's first answer to the same prompt"
        " in the same setting; a tie of two logits that fell otherwise is a difference; not known at"
        " a temperature above 0",
    ),
    "ratio": Definition(
        "ratio",
        "",
        "the arm's figure / the other arm's, both of all repetitions. Of server speed, the interval is of the ratios of"
        " repetitions of one number; of others, over prompts that are drawn for both arms alike",
    ),
    "interval": Definition(
        "95% interval",
        "",
        "over prompts: BCa bootstrap, 2,000 draws of prompts with all their repetitions; over repetitions: Student's t"
        " on logarithms. It says how much would change with other prompts or on another pass, not on another machine",
    ),
    "by_repetition": Definition("repetitions", "", "the same figure of each repetition alone"),
}
