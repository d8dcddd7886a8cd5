from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.build.profile.records import (
    ProfileError,
    ProfileRecord,
    append_record,
    merged,
    read_part,
    read_profile,
    write_profile,
)

COUNTS: dict[str, Any] = {
    "drafter": "coder",
    "task": "code",
    "num_steps": 3,
    "topk": 1,
    "num_draft_tokens": 4,
    "concurrency": 4,
    "requests": 8,
    "verify_steps": 100,
    "proposed_drafts": 300,
    "correct_by_position": (80, 50, 20),
    "completion_tokens": 258,
    "draft_seconds": 1.0,
    "verify_seconds": 2.0,
    "seconds": 4.0,
}


def made(**changes: Any) -> ProfileRecord:
    return ProfileRecord(**COUNTS | changes)


def test_the_ratios_are_sglangs() -> None:
    """accept_length counts the bonus token, accept_rate does not."""
    record = made()
    assert record.accept_length == 2.58
    assert record.accept_rate == 150 / 300
    assert (
        made(drafter="none", num_steps=0, num_draft_tokens=1, proposed_drafts=0, correct_by_position=()).accept_rate
        is None
    )
    assert record.forwards == 25
    assert made(verify_forwards=40).forwards == 40
    assert made(requests=2).forwards == 50


def test_written_and_read_it_is_the_same(tmp_path: Path) -> None:
    records = (made(), made(task="sql", verify_forwards=33), made(concurrency=1))
    write_profile(tmp_path / "profile.jsonl", records)
    assert read_profile(tmp_path / "profile.jsonl") == records
    assert [path.name for path in tmp_path.iterdir()] == ["profile.jsonl"]


def test_records_of_one_key_are_added_before_any_division(tmp_path: Path) -> None:
    short = made(requests=1, verify_steps=1, proposed_drafts=3, correct_by_position=(1, 1, 1), completion_tokens=4)
    write_profile(tmp_path / "profile.jsonl", [made(verify_forwards=30), short, made(task="sql")])
    total, other = read_profile(tmp_path / "profile.jsonl")
    assert total.accept_length == 262 / 101
    assert total.correct_by_position == (81, 51, 21)
    assert (total.seconds, total.verify_forwards) == (8.0, None)
    assert other.task == "sql"
    assert merged([made(verify_forwards=30), made(verify_forwards=31)])[0].verify_forwards == 61


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"correct_by_position": [50, 80, 20]}, "must not rise"),
        ({"correct_by_position": [101, 80, 20]}, "nor start above"),
        ({"correct_by_position": [80, 50]}, "2 entries, not"),
        ({"proposed_drafts": 149}, "`proposed_drafts` must lie between"),
        ({"proposed_drafts": 301}, "`proposed_drafts` must lie between"),
        ({"num_draft_tokens": 5}, "a chain of 3 steps has 4"),
        ({"topk": 2, "num_draft_tokens": 12}, "more than a tree"),
        ({"drafter": "none"}, "`none`, and only it"),
        ({"verify_forwards": 101}, "must not exceed"),
        ({"seconds": "4"}, r"`seconds` as \"4\""),
        ({"requests": 8.0}, "`requests` as 8.0"),
        ({"requests": True}, "`requests` as true"),
        ({"verify_steps": 0}, "`verify_steps` as 0"),
        ({"draft_seconds": -1.0}, "`draft_seconds` as -1"),
        ({"task": "a b"}, "`task` as"),
        ({"extra": 1}, "`extra`, which is unknown"),
        ({"seconds": None}, "`seconds` as null"),
    ],
)
def test_a_bad_line_is_one_sentence_with_its_number(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.jsonl"
    path.write_text(json.dumps(COUNTS) + "\n" + json.dumps(COUNTS | changes) + "\n")
    with pytest.raises(ProfileError, match=words) as caught:
        read_profile(path)
    assert str(caught.value).startswith(f"{path}, line 2, ") and "\n" not in str(caught.value)


def test_a_draft_by_text_has_as_many_target_tokens_as_it_may(tmp_path: Path) -> None:
    bytes_ = {"num_steps": 13, "num_draft_tokens": 5, "proposed_drafts": 400, "correct_by_position": (80, 50, 20, 9)}
    path = tmp_path / "profile.jsonl"
    path.write_text(json.dumps(COUNTS | bytes_ | {"vocab": "slem"}) + "\n")
    (record,) = read_profile(path)
    assert record.settings.depth == 4 and record.vocab == "slem"
    assert made().vocab == "shared"  # as records were before there was any other
    with pytest.raises(ValueError, match="a chain of 13 steps has 14"):
        made(**bytes_)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "has no records"),
        (b"[]\n", "not a JSON object"),
        (b'{"drafter"', "not complete JSON"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"drafter": "x"}', "lacks `task`"),
    ],
)
def test_what_is_no_profile_is_refused(text: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.jsonl"
    path.write_bytes(text)
    with pytest.raises(ProfileError, match=words):
        read_profile(path)
    with pytest.raises(ProfileError, match="is missing"):
        read_profile(tmp_path / "absent.jsonl")


def test_a_kill_in_a_line_loses_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "profile.jsonl.part"
    assert read_part(path) == ()
    append_record(path, made())
    append_record(path, made(task="sql"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert [record.task for record in read_part(path)] == ["code"]
    append_record(path, made(task="sql"))
    assert path.read_bytes() == whole
