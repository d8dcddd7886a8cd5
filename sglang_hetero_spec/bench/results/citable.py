"""May this run be cited? Every reason against it is one sentence; none means yes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sglang_hetero_spec.bench.results.bootstrap import MIN_REPETITIONS
from sglang_hetero_spec.bench.results.consistent import contradictions
from sglang_hetero_spec.bench.results.identical import reference, sameness
from sglang_hetero_spec.bench.results.run_files import Run

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"\d+(\.\d+)+\S*")
_FINISHED = ("stop", "length")


def reasons(run: Run) -> list[str]:
    """Why it may not be cited, by what is found in its records."""
    judges: tuple[Callable[[Run], Iterator[str]], ...] = (
        _commit, _engine, _hashes, _machine, _whole, _arms, _settings, _blocks, _repetitions, _answers, _output,
        _records,
    )  # fmt: skip
    return [sentence for judge in judges for sentence in judge(run)]


def _commit(run: Run) -> Iterator[str]:
    commit = run.metadata.get("commit")
    if not (isinstance(commit, str) and _COMMIT.fullmatch(commit)):
        yield "The commit of the code is not known."
    clean = run.metadata.get("clean_tree")
    if clean is None:
        yield "It is not known whether the code had changes that were not committed."
    elif clean is not True:
        yield "The code had changes that were not committed (a dirty tree)."


def _engine(run: Run) -> Iterator[str]:
    engine = _part(run.metadata, "engine")
    if engine.get("kind") != "sglang":
        yield f"The engine is not SGLang (engine.kind is {_said(engine.get('kind'))})."
    servers = _part(engine, "servers")
    if not servers:
        yield "No server is on record."
    for name, server in servers.items():
        version = server.get("version") if isinstance(server, dict) else None
        if not (isinstance(version, str) and _VERSION.fullmatch(version)):
            yield f"Server {name} did not say which version of SGLang it is."
        if not (isinstance(server, dict) and server.get("model_path")):
            yield f"Server {name} did not say which model it serves."
    versions = {str(server.get("version")) for server in servers.values() if isinstance(server, dict)}
    if len(versions) > 1:
        yield f"The servers are of different versions ({', '.join(sorted(versions))})."
    for arm in _arm_entries(run):
        if servers and str(arm.get("server")) not in servers:
            yield f"No server of arm {arm.get('name')} is on record."


def _hashes(run: Run) -> Iterator[str]:
    needed = [("target", "weights_sha256", "the target's weights"), ("workload", "sha256", "the workload")]
    if any(arm.get("router") for arm in _arm_entries(run)) or _part(run.metadata, "pool"):
        needed.append(("pool", "manifest_sha256", "the pool's manifest"))
    for part, key, words in needed:
        value = _part(run.metadata, part).get(key)
        if not (isinstance(value, str) and _SHA256.fullmatch(value)):
            yield f"The SHA-256 of {words} is not known."


def _machine(run: Run) -> Iterator[str]:
    machine = run.metadata.get("machine")
    machines = machine if isinstance(machine, list) else [machine]
    if not all(isinstance(item, dict) and item for item in machines) or not machines:
        yield "The machine is not described."
    elif any(item != machines[0] for item in machines):
        yield "Parts of the run were taken on different machines."


def _whole(run: Run) -> Iterator[str]:
    if run.metadata.get("complete") is not True:
        yield "The run did not come to its end."


def _arms(run: Run) -> Iterator[str]:
    recorded = {row.arm for row in run.requests}
    yield from _as_promised("Arm", run.promised_arms, recorded)
    if run.baseline not in recorded:
        yield f"The baseline {run.baseline} was not measured."
    if not recorded - {run.baseline}:
        yield "Nothing was measured beside the baseline."


def _settings(run: Run) -> Iterator[str]:
    yield from _as_promised("Setting", run.promised_settings, {row.setting for row in run.requests})


def _as_promised(kind: str, promised: Sequence[str], recorded: set[str]) -> Iterator[str]:
    for name in promised:
        if name not in recorded:
            yield f"{kind} {name} has no requests."
    for name in sorted(recorded - set(promised)):
        yield f"{kind} {name} has requests, but metadata.json does not know it."


def _blocks(run: Run) -> Iterator[str]:
    """Requests and blocks belong together, one block each."""
    blocks = Counter((one.arm, one.setting, one.repetition) for one in run.blocks)
    served = {(row.arm, row.setting, row.repetition) for row in run.requests}
    for name, number in blocks.items():
        if number > 1:
            yield f"Block {_block(name)} is on record {number} times."
    for name in sorted(served - set(blocks)):
        yield f"Block {_block(name)} is not in blocks.jsonl."
    for name in sorted(set(blocks) - served):
        yield f"Block {_block(name)} has no requests."
    if any(one.seconds <= 0 for one in run.blocks):
        yield "A block took no time."
    if len({one.order for one in run.blocks}) < len(run.blocks):
        yield "Two blocks have the same place in the order of the run."


def _repetitions(run: Run) -> Iterator[str]:
    """Every arm in every setting as often as promised, at least three times, every prompt once each time."""
    wanted = max(MIN_REPETITIONS, _whole_number(run.metadata.get("repetitions")))
    num_prompts = _whole_number(_part(run.metadata, "workload").get("num_prompts"))
    if not num_prompts:
        yield "The number of prompts of the workload is not known."
        return
    served: dict[tuple[str, str], dict[int, Counter[int]]] = {}
    for row in run.requests:
        served.setdefault((row.arm, row.setting), {}).setdefault(row.repetition, Counter())[row.prompt] += 1
    few = []
    for (arm, setting), each in served.items():
        whole = [number for number, found in each.items() if found == dict.fromkeys(range(num_prompts), 1)]
        for number in sorted(set(each) - set(whole)):
            yield f"Block {_block((arm, setting, number))} has not every prompt exactly once."
        if len(whole) < wanted:
            few.append(f"arm {arm} in setting {setting} has {len(whole)}")
    if few:
        more = "" if len(few) == 1 else f"; so {'has' if len(few) == 2 else 'have'} {len(few) - 1} more"
        yield f"At least {wanted} whole repetitions are needed; {few[0]}{more}."
    both = {(arm, setting) for arm in run.promised_arms for setting in run.promised_settings}
    recorded = {arm for arm, _ in served}, {setting for _, setting in served}
    for arm, setting in sorted(both - set(served)):
        if arm in recorded[0] and setting in recorded[1]:
            yield f"Arm {arm} has no requests in setting {setting}."


def _answers(run: Run) -> Iterator[str]:
    failed = [row for row in run.requests if row.finish not in _FINISHED or not row.completion_tokens]
    if failed:
        first = failed[0]
        yield (
            f"{_requests(len(failed))} not answered to the end (the first: {first.arm}, {first.setting}, prompt"
            f" {first.prompt}, finish reason {_said(first.finish)})."
        )


def _output(run: Run) -> Iterator[str]:
    if run.temperature != 0:
        at = "an unknown temperature" if run.temperature is None else f"temperature {run.temperature:g}"
        yield f"At {at} the output cannot be compared with the baseline's."
        return
    wanted = reference(run.requests, run.baseline)
    for arm in run.arms:
        same = sameness((row for row in run.requests if row.arm == arm), wanted, run.temperature)
        if same["value"] is False:
            number = len(same["differing_prompts"])
            prompts = f"{number} prompt" if number == 1 else f"{number} prompts"
            answers = f"{same['differing']} of its {same['compared']} answers, to {prompts}"
            yield f"The output of arm {arm} is not that of {run.baseline} ({answers}, differ)."
        elif same["value"] is None and any(row.arm == arm for row in run.requests):
            yield f"The output of arm {arm} was not compared with that of {run.baseline} in every answer."


def _records(run: Run) -> Iterator[str]:
    found = contradictions(run)
    if found:
        more = "" if len(found) == 1 else f", and {len(found) - 1} more"
        yield f"Records contradict themselves ({found[0]}{more})."


def _arm_entries(run: Run) -> list[dict[str, Any]]:
    listed = run.metadata.get("arms")
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _part(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _whole_number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _block(name: tuple[str, str, int]) -> str:
    arm, setting, repetition = name
    return f"{arm}, {setting}, repetition {repetition}"


def _requests(number: int) -> str:
    return "1 request was" if number == 1 else f"{number} requests were"


def _said(value: Any) -> str:
    return "not given" if value is None else repr(value)
