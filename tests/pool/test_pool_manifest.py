"""pool.json: every way of being wrong, each refused in one sentence: file, field, value, remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_pool import FakePool, refusal

KINDS = "`standalone`, `lora`, `sorted`, `ngram`, `none`"


def test_missing_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == (
        f"{tmp_path}/nowhere does not exist; give the folder that holds pool.json."
    )


def test_folder_is_a_file(pool: FakePool) -> None:
    assert refusal(pool.manifest_path) == (
        f"{pool.manifest_path} is not a folder; give the folder that holds pool.json."
    )


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_a_path_that_cannot_be(path: str) -> None:
    assert "give the folder that holds pool.json." in refusal(path)


def test_missing_manifest(pool: FakePool) -> None:
    pool.manifest_path.unlink()
    assert refusal(pool.root) == (f"{pool.manifest_path} is missing; check the path, or make the file again.")


def test_manifest_is_a_folder(pool: FakePool) -> None:
    pool.manifest_path.unlink()
    pool.manifest_path.mkdir()
    assert f"{pool.manifest_path} is not a file" in refusal(pool.root)


@pytest.mark.parametrize("keep", [0, 1, 40, 400])
def test_truncated(pool: FakePool, keep: int) -> None:
    pool.manifest_path.write_text(pool.manifest_path.read_text()[:keep])
    message = refusal(pool.root)
    assert message.startswith(f"{pool.manifest_path} is not complete JSON (line 1, column")
    assert message.endswith("; repair it, or write it again.")


@pytest.mark.parametrize("text", ["[" * 200_000, "9" * 10_000, "[]", '"pool"', "null", "\ufeff{}"])
def test_not_an_object(pool: FakePool, text: str) -> None:
    pool.manifest_path.write_text(text, encoding="utf-8")
    message = refusal(pool.root)
    assert message.startswith(str(pool.manifest_path)) and "write it again." in message


def test_manifest_too_large(pool: FakePool) -> None:
    pool.manifest_path.write_text(" " * (9 << 20))
    assert "has 9437184 bytes, more than 8388608" in refusal(pool.root)


def test_key_twice(pool: FakePool) -> None:
    text = json.dumps(pool.manifest).replace('"kind": "none"', '"kind": "none", "kind": "none"')
    pool.manifest_path.write_text(text)
    assert refusal(pool.root) == (f"{pool.manifest_path} has the key `kind` twice in one object; remove one of them.")


def test_not_utf8(pool: FakePool) -> None:
    pool.manifest_path.write_bytes(json.dumps(pool.manifest).encode("utf-16"))
    assert refusal(pool.root) == f"{pool.manifest_path} is not UTF-8 (byte 0); save it again as UTF-8."


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_json(pool: FakePool, word: str) -> None:
    pool.manifest_path.write_text(json.dumps(pool.manifest).replace("0.5", word))
    assert refusal(pool.root) == f"{pool.manifest_path} has the value {word}, which is not JSON; write a number."


@pytest.mark.parametrize("value", ["sglang_hetero_spec.router", "", 1, None])
def test_wrong_format(pool: FakePool, value: object) -> None:
    pool.manifest["format"] = value
    assert pool.refusal() == (
        f'{pool.manifest_path}: `format` is {json.dumps(value)}, not "sglang_hetero_spec.pool";'
        " is this a pool's manifest?"
    )


def test_no_format(pool: FakePool) -> None:
    del pool.manifest["format"]
    assert "`format` is null, not" in pool.refusal()


def test_newer_version_is_told_before_its_keys_are_called_unknown(pool: FakePool) -> None:
    pool.manifest.update(schema_version=2, invention={})
    pool.drafters[0]["kind"] = "oracle"
    assert pool.refusal() == (
        f"{pool.manifest_path}: `schema_version` is 2, newer than 1, the newest that this version reads;"
        " upgrade sglang-hetero-spec, or make the pool again with this version."
    )


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, -1])
def test_wrong_version(pool: FakePool, value: object) -> None:
    pool.manifest["schema_version"] = value
    assert f"`schema_version` is {json.dumps(value)}; write 1, a whole number." in pool.refusal()


@pytest.mark.parametrize(
    ("where", "key", "field", "remedy"),
    [
        ((), "drafter", "drafter", "did you mean `drafters`"),
        ((), "zzz", "zzz", "remove it (known here: `format`, `schema_version`,"),
        (("target",), "sha", "target.sha", "remove it (known here: `name_or_path`, `tokenizer_sha256`)"),
        (("drafters", 1), "num_step", "drafters[1].num_step", "did you mean `num_steps`"),
        (("tasks", 0), "drafters", "tasks[0].drafters", "did you mean `drafter`"),
        (("router",), "confidence", "router.confidence", "did you mean `min_confidence`"),
    ],
)
def test_unknown_key(pool: FakePool, where: tuple[Any, ...], key: str, field: str, remedy: str) -> None:
    place: Any = pool.manifest
    for part in where:
        place = place[part]
    place[key] = 1
    message = pool.refusal()
    assert message.startswith(f"{pool.manifest_path}: `{field}` is not a key that this version knows; {remedy}")


@pytest.mark.parametrize("kind", ["oracle", "", "Standalone", "eagle"])
def test_unknown_kind(pool: FakePool, kind: str) -> None:
    pool.drafters[1]["kind"] = kind
    assert pool.refusal() == (
        f'{pool.manifest_path}: `drafters[1].kind` is "{kind}", which is unknown; use one of {KINDS}.'
    )


def test_kind_of_a_later_version(pool: FakePool) -> None:
    """Its keys are a later version's, too: the kind is named, not the key."""
    pool.drafters[1].update(kind="eagle3", heads="drafters/heads")
    assert pool.refusal() == (
        f'{pool.manifest_path}: `drafters[1].kind` is "eagle3", which is not supported by this version;'
        f" use one of {KINDS}."
    )


def test_unknown_vocabulary_mode(pool: FakePool) -> None:
    pool.drafters[0]["vocab"] = "mine"
    assert pool.refusal() == (
        f'{pool.manifest_path}: `drafters[0].vocab` is "mine", which is unknown; use one of `shared`, `tli`, `slem`,'
        " `slrs`, `auto`."
    )


@pytest.mark.parametrize("vocab", ["slem", "slrs", "auto"])
def test_modes_that_draft_only_chains(pool: FakePool, vocab: str) -> None:
    pool.drafters[0]["vocab"] = vocab
    assert pool.refusal() == (
        f'{pool.manifest_path}: `drafters[0].topk` is 4, but a drafter whose `vocab` is "{vocab}" drafts a chain; give'
        " 1, or leave it out."
    )


@pytest.mark.parametrize("vocab", ["tli", "slrs", "auto"])
def test_chain_of_a_foreign_drafter_with_another_number_of_draft_tokens(pool: FakePool, vocab: str) -> None:
    pool.drafters[1].update(vocab=vocab, num_draft_tokens=9)
    assert "is 9, but a chain (`topk` 1) of 4 steps has 5 draft tokens; give that" in pool.refusal()


@pytest.mark.parametrize("value", [0, 1, 129, -1])
def test_slem_with_too_few_or_too_many_nodes(pool: FakePool, value: int) -> None:
    pool.drafters[1].update(vocab="slem", num_draft_tokens=value)
    assert pool.refusal() == (
        f"{pool.manifest_path}: `drafters[1].num_draft_tokens` is {value}; give a whole number from 2 to 128, nodes of"
        " the tree that `slem` makes of the drafted text."
    )


def test_two_drafters_of_one_name(pool: FakePool) -> None:
    pool.drafters[2]["name"] = "code"
    assert pool.refusal() == (
        f'{pool.manifest_path}: `drafters[2].name` is "code", as is `drafters[0].name`; rename one.'
    )


@pytest.mark.parametrize("key", ["id", "name"])
def test_two_tasks_of_one_name(pool: FakePool, key: str) -> None:
    pool.manifest["tasks"][0][key] = pool.manifest["tasks"][1][key] = "sql"
    assert f'`tasks[1].{key}` is "sql", as is `tasks[0].{key}`; rename one.' in pool.refusal()


def test_task_with_an_unknown_drafter(pool: FakePool) -> None:
    pool.manifest["tasks"][1]["drafter"] = "sql"
    assert pool.refusal() == (
        f'{pool.manifest_path}: `tasks[1].drafter` is "sql", which is no drafter; use one of `code`, `general`, `off`.'
    )


def test_unknown_fallback(pool: FakePool) -> None:
    pool.manifest["fallback_drafter"] = "best"
    assert pool.refusal() == (
        f'{pool.manifest_path}: `fallback_drafter` is "best", which is no drafter; use one of `code`, `general`, `off`.'
    )


@pytest.mark.parametrize(
    ("where", "key", "field"),
    [
        ((), "fallback_drafter", "fallback_drafter"),
        ((), "drafters", "drafters"),
        (("drafters", 0), "name", "drafters[0].name"),
        (("drafters", 2), "kind", "drafters[2].kind"),
        (("drafters", 1), "num_steps", "drafters[1].num_steps"),
        (("drafters", 1), "path", "drafters[1].path"),
        (("drafters", 0), "num_draft_tokens", "drafters[0].num_draft_tokens"),
        (("tasks", 0), "drafter", "tasks[0].drafter"),
        (("router",), "min_confidence", "router.min_confidence"),
    ],
)
def test_missing_key(pool: FakePool, where: tuple[Any, ...], key: str, field: str) -> None:
    place: Any = pool.manifest
    for part in where:
        place = place[part]
    del place[key]
    assert pool.refusal().startswith(f"{pool.manifest_path}: `{field}` is missing; ")


def test_no_drafters(pool: FakePool) -> None:
    pool.manifest["drafters"] = []
    assert "`drafters` is empty; list at least one drafter." in pool.refusal()


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("num_steps", 0, "give a whole number from 1 to 64."),
        ("num_steps", 1000, "give a whole number from 1 to 64."),
        ("num_steps", -3, "give a whole number from 1 to 64."),
        ("num_steps", True, "give a whole number."),
        ("num_steps", 4.0, "give a whole number."),
        ("num_steps", "4", "give a whole number."),
        ("topk", 0, "give a whole number from 1 to 32."),
        ("topk", 1000, "give a whole number from 1 to 32."),
        ("topk", -1, "give a whole number from 1 to 32."),
        ("topk", True, "give a whole number."),
        ("topk", 1.0, "give a whole number."),
        ("topk", "1", "give a whole number."),
        ("num_draft_tokens", 0, "give a whole number from 2 to 37 for 3 steps of topk 4."),
        ("num_draft_tokens", 1, "give a whole number from 2 to 37 for 3 steps of topk 4."),
        ("num_draft_tokens", 38, "give a whole number from 2 to 37 for 3 steps of topk 4."),
        ("num_draft_tokens", 1000, "give a whole number from 2 to 37 for 3 steps of topk 4."),
        ("num_draft_tokens", -8, "give a whole number from 2 to 37 for 3 steps of topk 4."),
        ("num_draft_tokens", True, "give a whole number."),
        ("num_draft_tokens", 8.5, "give a whole number."),
        ("num_draft_tokens", [8], "give a whole number."),
        ("name", "", "give 1 to 64 letters, digits, dots, dashes or underscores,"),
        ("name", "a/b", "give 1 to 64 letters, digits, dots, dashes or underscores,"),
        ("name", "a\n", "give 1 to 64 letters, digits, dots, dashes or underscores,"),
        ("name", 7, "give a string."),
        ("kind", 7, "give a string."),
        ("external", 1, "give true or false."),
        ("path", 7, "give a string."),
        ("weights_sha256", "12", "give 64 lower-case hexadecimal digits."),
        ("tokenizer_sha256", "Z" * 64, "give 64 lower-case hexadecimal digits."),
    ],
)
def test_wrong_value_of_a_drafter(pool: FakePool, field: str, value: object, remedy: str) -> None:
    pool.drafters[0][field] = value
    message = pool.refusal()
    assert message.startswith(f"{pool.manifest_path}: `drafters[0].{field}` is {json.dumps(value)}; {remedy}")


def test_more_draft_tokens_than_any_tree_may_have(pool: FakePool) -> None:
    pool.drafters[0].update(num_steps=10, topk=32, num_draft_tokens=129)
    assert "`drafters[0].num_draft_tokens` is 129; give a whole number from 2 to 128" in pool.refusal()


@pytest.mark.parametrize("value", [2, 4, 6, 128])
def test_chain_with_another_number_of_draft_tokens(pool: FakePool, value: int) -> None:
    pool.drafters[1]["num_draft_tokens"] = value
    assert pool.refusal() == (
        f"{pool.manifest_path}: `drafters[1].num_draft_tokens` is {value}, but a chain (`topk` 1) of 4 steps"
        " has 5 draft tokens; give that, or leave it out."
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_steps", 1), ("topk", 2), ("num_draft_tokens", 2), ("vocab", "tli"), ("path", "drafters/code")],
)
def test_kind_none_has_no_settings(pool: FakePool, field: str, value: object) -> None:
    pool.drafters[2][field] = value
    message = pool.refusal()
    assert f"`drafters[2].{field}` is {json.dumps(value)}, but kind `none`" in message and "remove it" in message


@pytest.mark.parametrize("value", [-0.1, 1.5, 1e9])
def test_confidence_out_of_range(pool: FakePool, value: float) -> None:
    pool.manifest["router"]["min_confidence"] = value
    assert "`router.min_confidence` is" in pool.refusal() and pool.refusal().endswith("give a number from 0 to 1.")


@pytest.mark.parametrize("value", [True, "0.5", None])
def test_confidence_of_a_wrong_type(pool: FakePool, value: object) -> None:
    pool.manifest["router"]["min_confidence"] = value
    assert f"`router.min_confidence` is {json.dumps(value)}; give a number." in pool.refusal()


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("drafters", {}, "give a list."),
        ("drafters", "code", "give a list."),
        ("tasks", None, "give a list."),
        ("router", [], "give an object."),
        ("target", "tiny", "give an object."),
        ("fallback_drafter", 0, "give a string."),
    ],
)
def test_wrong_type_at_the_top(pool: FakePool, field: str, value: object, remedy: str) -> None:
    pool.manifest[field] = value
    assert pool.refusal() == f"{pool.manifest_path}: `{field}` is {json.dumps(value)}; {remedy}"


def test_drafter_that_is_no_object(pool: FakePool) -> None:
    pool.drafters[1] = "general"  # type: ignore[call-overload]
    assert '`drafters[1]` is "general"; give an object.' in pool.refusal()


def test_a_long_value_is_cut_and_control_characters_do_not_break_the_line(pool: FakePool) -> None:
    pool.drafters[0]["kind"] = "x\n\x1b[2J" * 1000
    assert len(pool.refusal()) < 400
