"""The doctor never crashes, whatever the installation looks like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_pool import FakePool

from sglang_hetero_spec import SGLANG_VERSION
from sglang_hetero_spec.doctor import Check, examine
from sglang_hetero_spec.doctor_probe import MARK, ProbeResult, probe

ROOT = Path(__file__).resolve().parents[2]
NO_FINDINGS = ProbeResult([], None)


def checks(**arguments: Any) -> dict[str, Check]:
    return {check.name: check for check in examine(**{"run_probe": lambda: NO_FINDINGS, **arguments})}


def test_this_installation() -> None:
    found = checks()
    assert [found[name].status for name in ("Python", "SGLang", "plugin entry point", "SGLANG_PLUGINS")] == ["ok"] * 4
    assert found["cores"].detail.startswith(str(len(os.sched_getaffinity(0))))
    assert "GiB available" in found["memory"].detail


@pytest.mark.parametrize(
    ("value", "status", "remedy"),
    [
        ("other", "fail", "export SGLANG_PLUGINS=other,hetero_spec, or unset it"),
        ("other, hetero_spec", "ok", ""),
        (" , ", "ok", ""),
    ],
)
def test_whitelist(monkeypatch: pytest.MonkeyPatch, value: str, status: str, remedy: str) -> None:
    monkeypatch.setenv("SGLANG_PLUGINS", value)
    found = checks()["SGLANG_PLUGINS"]
    assert (found.status, found.remedy) == (status, remedy)


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    assert (checks()["cores"].status, "OMP_NUM_THREADS" in checks()["cores"].remedy) == ("warn", True)


def test_a_good_and_a_bad_pool(pool: FakePool) -> None:
    assert checks(pool=str(pool.root))["pool"].detail == f"{pool.root}: 3 drafters, 2 tasks"
    pool.drafters[0]["topk"] = 0
    pool.write()
    bad = checks(pool=str(pool.root))["pool"]
    assert (bad.status, bad.remedy) == ("fail", "give a whole number from 1 to 32.")
    assert bad.detail.endswith("`drafters[0].topk` is 0")


def test_another_sglang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "sglang-9.9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang\nVersion: 9.9.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = checks()["SGLang"]
    assert (found.status, found.remedy) == ("fail", f"pip install sglang=={SGLANG_VERSION}")
    assert "9.9.9" in found.detail


def test_nothing_installed_at_all(tmp_path: Path) -> None:
    """A Python with this source and nothing else: no sglang, no torch, no metadata of the package."""
    (tmp_path / "sglang_hetero_spec").symlink_to(ROOT / "sglang_hetero_spec")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from sglang_hetero_spec.cli import main; sys.exit(main())"
    )
    child = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code, "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert (child.returncode, child.stderr) == (1, "")
    report = json.loads(child.stdout)
    failed = {check["name"] for check in report["checks"] if check["status"] == "fail"}
    assert report["ok"] is False
    assert failed == {"SGLang", "plugin entry point", "SGLang's inside"}
    assert all(check["remedy"] for check in report["checks"] if check["status"] != "ok")


@pytest.mark.parametrize(
    ("code", "seconds", "says"),
    [
        ("import os; os.kill(os.getpid(), 11)", 60.0, "ended with exit code -11"),
        ("raise RuntimeError('no wheel for you')", 60.0, "exit code 1: RuntimeError: no wheel for you"),
        ("import time; time.sleep(600)", 5.0, "took more than 5 s"),
    ],
)
def test_a_child_that_dies_is_a_line_in_the_table(code: str, seconds: float, says: str) -> None:
    first = MARK + json.dumps({"name": "PyTorch", "status": "ok", "detail": "1", "remedy": ""})
    code = f"print({first!r}, flush=True); print({MARK + '{half'!r}, flush=True); {code}"
    result = probe(timeout_s=seconds, command=("-c", code))
    assert [finding["name"] for finding in result.findings] == ["PyTorch"]
    found = checks(run_probe=lambda: result)
    assert found["PyTorch"].status == "ok"
    assert (found["SGLang's inside"].status, says in found["SGLang's inside"].detail) == ("fail", True)


def test_a_child_that_cannot_start_is_a_line_in_the_table() -> None:
    def broken() -> ProbeResult:
        raise OSError("no memory")

    found = checks(run_probe=broken)["SGLang's inside"]
    assert (found.status, found.detail) == ("fail", "could not look (OSError: no memory)")


def test_broken_packages_are_lines_in_the_table(tmp_path: Path) -> None:
    """torch and sglang that cannot be imported: each part says so, none stops the next."""
    for name in ("torch", "sglang"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('libfoo.so: cannot open')")
    child = subprocess.run(
        [sys.executable, "-m", "sglang_hetero_spec.doctor_probe"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [json.loads(line.removeprefix(MARK)) for line in child.stdout.splitlines()]
    assert {line["name"]: line["status"] for line in lines}["PyTorch"] == "fail"
    assert all("libfoo.so" in line["detail"] for line in lines if line["name"] in ("PyTorch", "sgl_kernel", "HETERO"))
    assert "Traceback" not in child.stderr


@pytest.mark.slow
def test_doctor_on_the_real_sglang(hetero_spec: Callable[..., Any]) -> None:
    ran = hetero_spec("doctor", "--json")
    found = {check["name"]: check for check in json.loads(ran.out)["checks"]}
    for name in ("PyTorch", "sgl_kernel", "HETERO", "hooks", "ledger"):
        assert found[name]["status"] == "ok", found[name]
    assert ran.code == 0
