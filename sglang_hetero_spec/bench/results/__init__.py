"""A run's figures, and whether they may be cited.

`finish(run_folder)` reads metadata.json, requests.jsonl, blocks.jsonl and, if there, differences.jsonl, and writes
aggregate.json, summary.md and report.html. `check(run_folder)` writes nothing: it computes all of it anew and sees what
was changed since. Strict JSON; what is not known is null, never 0.

aggregate.json:

    format, schema_version     "sglang_hetero_spec.bench.aggregate", 1
    records                    {file: its SHA-256, null without the file}: what all of this was made from
    citable, why_not           true and [], or false and one sentence for each reason
    intervals                  {level, resamples, seed} of the bootstrap
    definitions                {column: {title, unit, meaning}}
    baseline, arms, tasks      names
    identical                  {arm: SAME} over all settings
    differences                lines of differences.jsonl, null without the file
    settings                   {setting: {"arms": {arm: ARM}, "ratios": {"arm/base": RATIOS}}}
    speed_model                of bench/speed_model, null without it

    ARM       {"all": GROUP and SERVER, "tasks": {task: GROUP}, "drafters": {drafter: GROUP and draft_seconds_share}}
    GROUP     requests, prompts, prompt_tokens, completion_tokens, verify_steps, proposed, correct,
              request_seconds: sums
              accept_length, accept_rate, request_tokens_per_second: ESTIMATE, over prompts
              accept_rate_by_position: [{position, steps, correct, rate}]
              ttft, inter_token, chunk_gap, latency: {"p50": ESTIMATE, "p99": ESTIMATE} in seconds
              identical: SAME; routes: {drafter: requests}
    SERVER    server_tokens_per_second: ESTIMATE, over repetitions
              draft_share, target_share, host_share: ESTIMATE without interval
              step_seconds, host_step_seconds, forwards, route_seconds, kv_bytes, kv_used_tokens: numbers
    RATIOS    {"all": {server_tokens_per_second, request_tokens_per_second, accept_length},
              "tasks": {task: the last two}}, each an ESTIMATE
    ESTIMATE  {value, low, high, by_repetition}: over all repetitions, its 95% interval, each repetition alone
    SAME      {value: true, false or null, compared, differing, differing_prompts}
"""

from sglang_hetero_spec.bench.results.finish import Finished, check, finish

__all__ = ["Finished", "check", "finish"]
