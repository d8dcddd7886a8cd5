"""HETERO answers all that SGLang asks an algorithm, and is registered once."""

from __future__ import annotations

import inspect
from collections import defaultdict

import pytest

from sglang_hetero_spec import plugin

# In the enum's interface only: without ours SGLang would end in an AttributeError.
OURS = ("carries_draft_hidden_states", "need_topk", "get_platform_worker_cls", "create_future_map")


def interface() -> dict[str, inspect.Signature]:
    """Public methods of SGLang's enum; those that make an algorithm out of a name are not asked of one."""
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    return {
        name: inspect.signature(value)
        for name, value in vars(SpeculativeAlgorithm).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


@pytest.mark.usefixtures("sglang")
def test_every_public_method_of_the_enum_is_answered() -> None:
    from sglang_hetero_spec.algorithm import HeteroAlgorithm, missing_methods

    assert missing_methods() == []
    assert len(interface()) > 20
    for name, signature in interface().items():
        ours = inspect.signature(getattr(HeteroAlgorithm, name)).parameters
        wanted = signature.parameters
        assert list(ours)[: len(wanted)] == list(wanted), name
        assert all(ours[key].default == wanted[key].default for key in wanted), name


@pytest.mark.usefixtures("sglang")
@pytest.mark.parametrize("name", OURS)
def test_a_method_that_is_gone_is_missed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from sglang_hetero_spec.algorithm import HeteroAlgorithm, missing_methods

    monkeypatch.delattr(HeteroAlgorithm, name)
    assert missing_methods() == [name]


@pytest.mark.usefixtures("sglang")
def test_a_method_that_a_new_sglang_adds_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    from sglang_hetero_spec.algorithm import missing_methods

    monkeypatch.setattr(SpeculativeAlgorithm, "has_wings", lambda self: False, raising=False)
    assert missing_methods() == ["has_wings"]


@pytest.mark.usefixtures("sglang")
def test_predicates() -> None:
    from sglang_hetero_spec.algorithm import HeteroAlgorithm

    algorithm = HeteroAlgorithm("HETERO", lambda args: None, supports_overlap=True)
    yes = {
        name
        for name, signature in interface().items()
        if name.startswith(("is_", "supports_", "has_", "need_", "carries_"))
        and len(signature.parameters) == 1
        and getattr(algorithm, name)()
    }
    assert yes == {"is_some", "is_speculative", "is_standalone", "supports_grammar_overlap", "has_draft_kv"}
    assert algorithm.supports_overlap and algorithm.draft_cell_bytes == 0


@pytest.fixture
def unregistered(sglang: None, monkeypatch: pytest.MonkeyPatch) -> type:
    """SGLang's registries as they are before any plugin has run; put back afterwards."""
    from sglang.srt.plugins.hook_registry import HookRegistry
    from sglang.srt.speculative import spec_registry

    monkeypatch.setattr(plugin, "_hooks", [])
    monkeypatch.setattr(plugin, "_problems", [])
    monkeypatch.setattr(HookRegistry, "_hooks", defaultdict(list))
    monkeypatch.setattr(HookRegistry, "_patched", set())
    monkeypatch.setattr(spec_registry, "_REGISTRY", {})
    return HookRegistry


def test_before_registering_the_plugin_says_so(unregistered: type) -> None:
    assert plugin.verify_hooks() == [
        "the plugin was not loaded; check SGLANG_PLUGINS and that the package is installed"
    ]


def test_registering_twice_is_registering_once(unregistered: type) -> None:
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    plugin.register()
    plugin.register()
    assert {target: len(hooks) for target, hooks in unregistered._hooks.items()} == {
        hook.target: 1 for hook in plugin.all_hooks()
    }
    algorithm = SpeculativeAlgorithm.from_string("hetero")
    assert algorithm.name == "HETERO" and algorithm.is_standalone()


def test_a_hook_that_did_not_take_hold_is_named(unregistered: type) -> None:
    plugin.register()
    targets = [hook.target for hook in plugin.all_hooks()]
    assert len(plugin.verify_hooks()) == len(targets)
    unregistered._patched.update(targets[1:])
    assert plugin.verify_hooks() == [f"the hook on {targets[0]} did not take hold"]
    unregistered._patched.add(targets[0])
    assert plugin.verify_hooks() == []


def test_another_sglang_is_named_and_one_hook_leads_to_it(unregistered: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin.importlib.metadata, "version", lambda name: "0.5.99")
    plugin.register()
    assert list(unregistered._hooks) == [plugin.all_hooks()[0].target]
    (problem,) = plugin.verify_hooks()
    assert "0.5.99" in problem and "0.5.23" in problem


def test_local_builds_of_the_right_version_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin.importlib.metadata, "version", lambda name: "0.5.23+cpu")
    assert plugin.version_problem() is None
