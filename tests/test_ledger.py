"""The ledger in patches/ and the hooks in the code are the same set, made against the SGLang that is installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROBE = """
import json
from sglang_hetero_spec import cpu
cpu.enable()
from sglang.srt.plugins import load_plugins
load_plugins()
from sglang_hetero_spec import ledger, plugin
whole = ledger.check_ledger()
hashed = ledger.source_sha256
changed = ledger.read_ledger()[0].target
ledger.source_sha256 = lambda target: "0" * 64 if target == changed else hashed(target)
after_change = ledger.check_ledger()
ledger.source_sha256 = hashed
missing = plugin.all_hooks
plugin.all_hooks = lambda: missing()[1:]
print(json.dumps({"hooks": plugin.verify_hooks(), "whole": whole, "changed": changed, "after_change": after_change,
                  "dropped": missing()[0].target, "after_drop": ledger.check_ledger()}))
"""


@pytest.fixture(scope="module")
def findings() -> dict:
    """One fresh process that loads the plugin as SGLang does (about 15 s, nearly all of it imports)."""
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_hooks_and_ledger_are_the_same_set_and_hashes_match(findings: dict) -> None:
    assert findings["whole"] == []


def test_every_hook_took_hold(findings: dict) -> None:
    assert findings["hooks"] == []


def test_a_function_that_changed_upstream_is_named(findings: dict) -> None:
    assert len(findings["after_change"]) == 1
    assert findings["changed"] in findings["after_change"][0]


def test_a_ledger_entry_without_a_hook_is_named(findings: dict) -> None:
    assert findings["after_drop"] == [f"the ledger names {findings['dropped']}, which is not hooked"]
