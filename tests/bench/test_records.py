"""Records of a run: written and read back alike; what is not one is refused by line and field."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sglang_hetero_spec.bench import records
from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.records import BlockRecord, RequestRecord

REQUEST = RequestRecord(
    arm="hetero",
    setting="c4",
    repetition=0,
    prompt=3,
    task="sql",
    prompt_tokens=40,
    completion_tokens=5,
    start=0.25,
    seconds=1.5,
    ttft=0.5,
    chunks=[(0.5, 1), (1.5, 5)],
    verify_steps=2,
    proposed=8,
    correct=3,
    histogram=[0, 1, 1],
    drafter="sql",
    confidence=0.9,
    source="router",
    output_ids=[1, 2, 3, 4, 5],
    finish="length",
)
BLOCK = BlockRecord(
    arm="none",
    setting="r2.5",
    repetition=1,
    order=7,
    seconds=3.0,
    peak_load=None,
    draft_seconds=None,
    target_seconds=None,
    host_seconds=None,
    forwards=None,
    route_seconds=None,
    routes=None,
    drafter_seconds=None,
    kv_bytes=1024,
    kv_used_tokens=None,
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    requests, blocks = tmp_path / "requests.jsonl", tmp_path / "blocks.jsonl"
    records.write_requests(requests, [REQUEST])
    records.append_requests(requests, [replace(REQUEST, prompt=4, ttft=None, histogram=None)])
    records.write_blocks(blocks, [BLOCK])
    records.append_block(blocks, replace(BLOCK, drafter_seconds={"sql": 0.5}, routes=4))
    assert records.read_requests(requests) == [REQUEST, replace(REQUEST, prompt=4, ttft=None, histogram=None)]
    assert records.read_blocks(blocks) == [BLOCK, replace(BLOCK, drafter_seconds={"sql": 0.5}, routes=4)]


def test_what_is_unknown_is_null(tmp_path: Path) -> None:
    records.write_blocks(tmp_path / "b", [BLOCK])
    assert json.loads((tmp_path / "b").read_text())["draft_seconds"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arm": None}, "`arm`"),
        ({"seconds": -1.0}, "`seconds`"),
        ({"prompt": 1.5}, "`prompt`"),
        ({"chunks": [[0.1, 1, 2]]}, "`chunks.0"),
        ({"more": 1}, "`more`"),
    ],
)
def test_what_is_no_record_is_refused_by_line_and_field(tmp_path: Path, change: dict, said: str) -> None:
    lines = [json.dumps(asdict(REQUEST)), json.dumps(asdict(REQUEST) | change)]
    (tmp_path / "r").write_text("\n".join(lines))
    with pytest.raises(BenchError, match="line 2, is not a record") as refused:
        records.read_requests(tmp_path / "r")
    assert said in str(refused.value)


def test_a_missing_key_is_refused(tmp_path: Path) -> None:
    line = asdict(REQUEST)
    del line["ttft"]
    (tmp_path / "r").write_text(json.dumps(line))
    with pytest.raises(BenchError, match="`ttft`: field required"):
        records.read_requests(tmp_path / "r")


def test_a_torn_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "r"
    records.write_requests(path, [REQUEST])
    with path.open("ab") as file:
        file.write(b'{"arm": "he')
    with pytest.raises(BenchError, match="line 2"):
        records.read_requests(path)
    records.cut_torn_line(path)
    assert records.read_requests(path) == [REQUEST]
