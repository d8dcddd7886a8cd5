"""build.yaml: strict, in one sentence, flags over file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_hetero_spec.build.recipe import RecipeError, load_recipe


def write(folder: Path, text: str) -> Path:
    path = folder / "build.yaml"
    path.write_text(text)
    return path


def test_defaults_and_paths_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("{}")
    (tmp_path / "words").mkdir()
    recipe = load_recipe(write(tmp_path, "target: org/model\nprompts: log.jsonl\ntokenizer: words\n"), {})
    assert recipe.tokenizer == str(tmp_path / "words")
    assert recipe.prompts == str(tmp_path / "log.jsonl")
    assert recipe.target == "org/model"
    assert recipe.align.loss == "forward_kl"


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "target: t\nprompts: p\nalign: {tokens: 5}\nprofile: {passes: 3}\n")
    recipe = load_recipe(path, {"align.loss": "tvd++", "prompts": "q", "partition.n_tasks": 4})
    assert (recipe.align.loss, recipe.align.tokens, recipe.prompts) == ("tvd++", 5, "q")
    assert (recipe.partition.n_tasks, recipe.profile.passes) == (4, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("target: t\n", ("`prompts` is missing", "--prompts")),
        ("target: t\nprompts: p\ncolour: red\n", ("no `colour`", "target, prompts")),
        ("target: t\nprompts: p\nalign: {loss: magic}\n", ("`align.loss", "'magic'")),
        ("target: t\nprompts: p\nseed: -1\n", ("`seed`", "-1")),
        ("target: t\nprompts: ' '\n", ("`prompts`", "empty")),
        ("target: t\nprompts: p\nheldout_share: 1\n", ("`heldout_share`",)),
        ("- a\n- b\n", ("key: value",)),
        ("a: [", ("not YAML",)),
        ("", ("key: value",)),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, text), {})
    said = str(error.value)
    assert all(word in said for word in words), said
    assert said.endswith(".") and "\n" not in said


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml", {})
