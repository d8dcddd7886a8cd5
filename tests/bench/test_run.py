"""Whole runs of the command against fake servers: what is written, and what is left to do after a kill."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec import cli
from sglang_hetero_spec.bench import run as bench_run
from sglang_hetero_spec.bench.records import BlockRecord, read_blocks, read_requests
from tests.bench.conftest import fakes
from tests.bench.fake import Fake

ARMS = ("none", "standalone-best", "ngram", "hetero", "hetero-oracle", "hetero-random", "hetero-worst")
NUM_PROMPTS, REPETITIONS, SETTINGS = 6, 2, 3
NUM_BLOCKS = len(ARMS) * REPETITIONS * SETTINGS


ALGORITHMS = {"none": None, "standalone-best": "STANDALONE", "ngram": "NGRAM", "hetero": "HETERO"}


def command_for(servers: dict[str, Fake]) -> list[str]:
    traffic = ["--concurrency", "1,3", "--rate", "200", "--repetitions", str(REPETITIONS)]
    urls = [part for name, fake in servers.items() for part in ("--url", f"{name}={fake.url}")]
    small = ["--target-params", "0", "--num-prompts", str(NUM_PROMPTS), "--max-new-tokens", "5", "--device", "cpu"]
    return ["bench", *small, *traffic, *urls]


@pytest.fixture
def servers(start_fake: Callable[..., Fake]) -> dict[str, Fake]:
    return {name: start_fake(algorithm) for name, algorithm in ALGORITHMS.items()}


@pytest.fixture
def command(servers: dict[str, Fake]) -> list[str]:
    return command_for(servers)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Fake]]:
    """A run of all arms, and the servers that it asked."""
    run = tmp_path_factory.mktemp("bench") / "run"
    with fakes() as start:
        servers = {name: start(algorithm) for name, algorithm in ALGORITHMS.items()}
        assert cli.main([*command_for(servers), "--out", str(run)]) == 0
    return run, servers


def measured(servers: dict[str, Fake]) -> int:
    """Requests that all servers have seen."""
    return sum(len(fake.seen) for fake in servers.values())


def metadata(run: Path) -> dict[str, Any]:
    return json.loads((run / "metadata.json").read_text())


def blocks_by_arm(run: Path) -> dict[str, list[BlockRecord]]:
    found: dict[str, list[BlockRecord]] = {}
    for block in read_blocks(run / "blocks.jsonl"):
        found.setdefault(block.arm, []).append(block)
    return found


def test_everything_is_written_down(whole: tuple[Path, dict[str, Fake]]) -> None:
    run, _ = whole
    requests = read_requests(run / "requests.jsonl")
    counts = Counter((one.arm, one.setting, one.repetition) for one in requests)
    assert len(counts) == NUM_BLOCKS and set(counts.values()) == {NUM_PROMPTS}
    assert {one.arm for one in requests} == set(ARMS)
    assert {one.setting for one in requests} == {"c1", "c3", "r200"}
    assert {one.task for one in requests} == {"python", "math", "e2e", "json", "sql", "translate"}
    by_arm = {one.arm: one for one in requests}
    assert (by_arm["none"].verify_steps, by_arm["none"].histogram, by_arm["none"].drafter) == (None, None, None)
    assert (by_arm["ngram"].verify_steps, by_arm["ngram"].histogram) == (2, [0, 1, 1])
    assert by_arm["hetero"].drafter == "routed"
    oracle = [one for one in requests if one.arm == "hetero-oracle"]
    assert all(one.drafter == one.task for one in oracle)
    worst = [one for one in requests if one.arm == "hetero-worst"]
    assert all(one.drafter not in (one.task, "none", None) for one in worst)

    found = metadata(run)
    assert found["complete"] is True and found["baseline"] == "none" and found["settings"] == ["c1", "c3", "r200"]
    assert found["workload"]["num_prompts"] == NUM_PROMPTS and found["repetitions"] == REPETITIONS
    assert found["engine"]["servers"]["hetero"]["started_by_us"] is False
    assert found["engine"]["servers"]["hetero"]["version"] == "0.5.23"
    assert len(found["target"]["weights_sha256"]) == len(found["pool"]["manifest_sha256"]) == 64
    assert (run / "differences.jsonl").read_text() == ""


def test_blocks_alternate_with_a_forgotten_cache_and_their_own_counters(whole: tuple[Path, dict[str, Fake]]) -> None:
    run, servers = whole
    blocks = read_blocks(run / "blocks.jsonl")
    assert [block.order for block in blocks] == list(range(NUM_BLOCKS))
    assert [block.arm for block in blocks[: len(ARMS)]] == list(ARMS)
    assert [block.arm for block in blocks[-len(ARMS) :]] == list(reversed(ARMS))
    assert {fake.flushes for fake in (servers["none"], servers["ngram"])} == {REPETITIONS * SETTINGS}
    assert servers["hetero"].flushes == 4 * REPETITIONS * SETTINGS
    by_arm = blocks_by_arm(run)
    for block in by_arm["hetero"] + by_arm["hetero-worst"]:
        assert block.draft_seconds == 0.25 * NUM_PROMPTS and block.forwards == 3 * NUM_PROMPTS
        assert block.host_seconds == 0.125 * NUM_PROMPTS and block.target_seconds == 0.875 * NUM_PROMPTS
    for block in by_arm["none"] + by_arm["ngram"]:
        assert block.draft_seconds is block.forwards is block.drafter_seconds is None
    assert {block.kv_bytes for block in blocks} == {1 << 28}


def test_a_run_agrees_with_itself_and_is_checked(
    whole: tuple[Path, dict[str, Fake]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(whole[0])
    assert cli.main(["bench", "--agree", run, run]) == 0
    out = capsys.readouterr().out
    assert "accept length, hetero" in out and "DIFFER" not in out
    assert cli.main(["bench", "--check", run]) == 1, "two repetitions are too few"
    assert capsys.readouterr().out.startswith("Not citable:")
    assert cli.main(["bench", "--agree", run, "/nowhere"]) == 2


def test_a_difference_is_explained(command: list[str], servers: dict[str, Fake], tmp_path: Path) -> None:
    servers["hetero"].wrong = "sql"  # the oracle's drafter of one prompt of six
    run = tmp_path / "run"
    arms = ["--arms", "none,hetero,hetero-oracle"]
    command = [part for part in command if part != "--url" and "http" not in part]
    urls = [part for name in ("none", "hetero") for part in ("--url", f"{name}={servers[name].url}")]
    assert cli.main([*command, *urls, *arms, "--out", str(run)]) == 0
    rows = [json.loads(line) for line in (run / "differences.jsonl").read_text().splitlines()]
    assert len(rows) == REPETITIONS * SETTINGS
    assert {(row["arm"], row["place"], row["gap"]) for row in rows} == {("hetero-oracle", 4, 0.25)}
    asked = [seen for seen in servers["hetero"].seen if "input_ids" in seen]
    assert len(asked[0]["input_ids"]) == 1 + 4, "the prompt, and the answer up to where they part"


def test_a_killed_run_goes_on_with_the_blocks_that_lack(
    command: list[str], servers: dict[str, Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, whole = tmp_path / "run", bench_run.Run._block
    done: list[str] = []

    def stopped(self: Any, block: Any, *rest: Any) -> None:
        if len(done) == 5:
            raise KeyboardInterrupt
        whole(self, block, *rest)
        done.append(block.arm.name)

    monkeypatch.setattr(bench_run.Run, "_block", stopped)
    assert cli.main([*command, "--out", str(run)]) == 130
    assert f"`hetero-spec bench --resume {run}` goes on from there" in capsys.readouterr().err
    assert metadata(run)["complete"] is False and len(read_blocks(run / "blocks.jsonl")) == 5
    first = (run / "blocks.jsonl").read_bytes()
    # As after kill -9: a request of the block that was broken off, and half a line.
    line = (run / "requests.jsonl").read_bytes().splitlines(keepends=True)[0]
    orphan = line.replace(b'"repetition":0', b'"repetition":1')
    with (run / "requests.jsonl").open("ab") as file:
        file.write(orphan + line[:40])

    monkeypatch.setattr(bench_run.Run, "_block", whole)
    assert cli.main(["bench", "--resume", str(run)]) == 0
    assert "5 blocks were measured before, 37 are left" in capsys.readouterr().err
    assert (run / "blocks.jsonl").read_bytes().startswith(first)
    assert sorted(block.order for block in read_blocks(run / "blocks.jsonl")) == list(range(NUM_BLOCKS))
    counts = Counter(
        (one.arm, one.setting, one.repetition, one.prompt) for one in read_requests(run / "requests.jsonl")
    )
    assert len(counts) == NUM_BLOCKS * NUM_PROMPTS and set(counts.values()) == {1}
    assert metadata(run)["complete"] is True

    before = measured(servers)
    for again in ([*command, "--out", str(run)], ["bench", "--resume", str(run)]):
        assert cli.main(again) == 0, "complete: shown once more"
        assert "| task |" in capsys.readouterr().out
    assert measured(servers) == before


OTHER = {
    "other prompts, --num-prompts": ["--num-prompts", "5"],
    "--max-new-tokens": ["--max-new-tokens", "4"],
    "other --repetitions": ["--repetitions", "3"],
    "other --arms": ["--arms", "none,hetero"],
    "other --concurrency or --rate": ["--concurrency", "2"],
    "another --seed": ["--seed", "5"],
    "--device, --dtype or --threads": ["--threads", "63"],
}


def test_a_folder_with_another_run_is_left_alone(
    servers: dict[str, Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    small = ["--target-params", "0", "--num-prompts", "6", "--max-new-tokens", "5", "--device", "cpu"]
    traffic = ["--repetitions", "1", "--concurrency", "6", "--arms", "none,hetero,hetero-oracle"]
    urls = [part for name in ("none", "hetero") for part in ("--url", f"{name}={servers[name].url}")]
    command = ["bench", *small, *traffic, *urls, "--out", str(run)]
    assert cli.main(command) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for said, change in OTHER.items():
        capsys.readouterr()
        assert cli.main([*command, *change]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert said in last and "name another --out" in last
        assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_a_server_that_fails_ends_the_run_in_one_sentence(
    command: list[str], servers: dict[str, Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers["ngram"].breaks_at = 30
    run = tmp_path / "run"
    assert cli.main([*command, "--out", str(run)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "What was measured is kept" in said and f"--resume {run}" in said
    assert read_blocks(run / "blocks.jsonl") and metadata(run)["complete"] is False
