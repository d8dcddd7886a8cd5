"""The shipped files: found or explained, copied whole, prompts of all tasks in turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sglang_hetero_spec.cli import main
from sglang_hetero_spec.commands.output import UsageError
from sglang_hetero_spec.demo import shipped
from sglang_hetero_spec.demo.shipped import Prompt, interleave

FILES = (
    "target/config.json",
    "target/model.safetensors",
    "pool/pool.json",
    "pool/drafters/a/config.json",
    "small/target/config.json",
    "small/target/model.safetensors",
    "small/pool/pool.json",
    "heldout.jsonl",
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "assets"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"this is {name}")
    monkeypatch.setattr(shipped, "ASSETS", root)
    return root


@pytest.fixture
def demo(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["demo", *map(str, arguments)])
        return (code, *capfd.readouterr())

    return run


def test_export_copies_target_and_pool_whole(assets: Path, demo: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    code, said, err = demo("--export", out)
    assert (code, err) == (0, "")
    for name in FILES[:-1]:
        assert (out / name).read_text() == f"this is {name}"
    assert sorted(path.name for path in out.iterdir()) == ["pool", "small", "target"]
    assert f"hetero-spec serve --model-path {out}/target" in said and f"{out}/pool" in said
    assert f"hetero-spec serve --model-path {out}/small/target" in said and f"{out}/small/pool" in said


def test_export_for_machines(assets: Path, demo: Run, tmp_path: Path) -> None:
    code, said, err = demo("--export", tmp_path / "out", "--json")
    assert (code, err) == (0, "")
    out = tmp_path / "out"
    small = {"target": str(out / "small/target"), "pool": str(out / "small/pool")}
    assert json.loads(said) == {"target": str(out / "target"), "pool": str(out / "pool"), "small": small}


@pytest.mark.parametrize("name", ["pool", "small/pool"])
def test_export_overwrites_nothing(assets: Path, demo: Run, tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.mkdir(parents=True)
    code, said, err = demo("--export", tmp_path)
    assert (code, said) == (2, "") and f"{mine} exists already; name another folder" in err
    assert list(mine.iterdir()) == [] and not (tmp_path / "target").exists()


def test_export_where_nothing_can_be_written(assets: Path, demo: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = demo("--export", tmp_path / "file" / "out")
    assert code == 2 and "cannot be written (Not a directory); name a folder that can." in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["target/model.safetensors", "small/pool/pool.json", "heldout.jsonl"])
@pytest.mark.parametrize("arguments", [(), ("--json",), ("--export", "out")])
def test_missing_files_say_how_they_are_made(assets: Path, demo: Run, name: str, arguments: tuple[str, ...]) -> None:
    (assets / name).unlink()
    code, said, err = demo(*arguments)
    assert (code, said) == (1, "") and err.count("\n") == 1
    assert f"{assets / name} is missing" in err and f"sglang_hetero_spec.demo.make --out {assets}" in err


def some(task: str, number: int) -> list[Prompt]:
    return [Prompt(f"{task}{i}", task) for i in range(number)]


def test_tasks_come_in_turn_and_warm_up_prompts_are_others() -> None:
    prompts, warm_up = interleave([*some("a", 4), *some("b", 4), *some("c", 2)], 6)
    assert [prompt.text for prompt in prompts] == ["a0", "b0", "c0", "a1", "b1", "a2"]
    assert [prompt.text for prompt in warm_up] == ["a3", "b3", "c1"]


def test_more_prompts_than_there_are() -> None:
    with pytest.raises(UsageError, match="--num-prompts 6 is more than the demo has \\(5 held-out prompts\\)"):
        interleave([*some("a", 4), *some("b", 3)], 6)
