"""HETERO answers all that SGLang asks an algorithm, refuses what it cannot serve, and is registered once."""

from __future__ import annotations

import inspect
from collections import defaultdict
from types import SimpleNamespace

import pytest

from sglang_hetero_spec import plugin
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.server_args import UNSUPPORTED, refuse_unsupported

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


SERVABLE = {
    "pp_size": 1,
    "enable_dp_attention": False,
    "disaggregation_mode": "null",
    "tokenizer_worker_num": 1,
    "enable_lora": None,
    "lora_paths": None,
    "enable_mixed_chunk": False,
    "speculative_use_rejection_sampling": False,
    "enable_hierarchical_cache": False,
    "speculative_accept_threshold_single": 1.0,
    "speculative_accept_threshold_acc": 1.0,
    "speculative_adaptive": False,
    "enable_watermark": False,
    "speculative_num_steps": None,
    "speculative_eagle_topk": None,
    "speculative_num_draft_tokens": None,
}
REFUSED = [
    ("pp_size", 2, "--pp-size"),
    ("enable_dp_attention", True, "--enable-dp-attention"),
    ("disaggregation_mode", "prefill", "--disaggregation-mode"),
    ("tokenizer_worker_num", 2, "--tokenizer-worker-num"),
    ("enable_lora", True, "--enable-lora"),
    ("lora_paths", ["a"], "--lora-paths"),
    ("enable_mixed_chunk", True, "--enable-mixed-chunk"),
    ("speculative_use_rejection_sampling", True, "--speculative-use-rejection-sampling"),
    ("enable_hierarchical_cache", True, "--enable-hierarchical-cache"),
    ("speculative_accept_threshold_single", 0.9, "--speculative-accept-threshold-single"),
    ("speculative_accept_threshold_acc", 0.9, "-acc"),
    ("speculative_adaptive", True, "--speculative-adaptive"),
    ("enable_watermark", True, "--enable-watermark"),
    ("speculative_num_steps", 3, "--speculative-num-steps"),
    ("speculative_eagle_topk", 1, "--speculative-eagle-topk"),
    ("speculative_num_draft_tokens", 4, "--speculative-num-draft-tokens"),
]


def test_plain_arguments_are_served() -> None:
    refuse_unsupported(SimpleNamespace(**SERVABLE))


@pytest.mark.parametrize(("field", "value", "flag"), REFUSED)
def test_what_cannot_be_served_is_refused_by_name(field: str, value: object, flag: str) -> None:
    with pytest.raises(HeteroError) as refused:
        refuse_unsupported(SimpleNamespace(**{**SERVABLE, field: value}))
    message = str(refused.value)
    assert flag in message and message.startswith("HETERO does not support") and "\n" not in message


def test_every_entry_of_the_list_has_a_case() -> None:
    reached = set()
    for field, value, _ in REFUSED:
        cfg = SimpleNamespace(**{**SERVABLE, field: value})
        reached |= {entry.flag for entry in UNSUPPORTED if entry.applies(cfg)}
    assert reached == {entry.flag for entry in UNSUPPORTED}


@pytest.mark.usefixtures("sglang")
def test_the_arguments_are_sglangs_and_its_defaults_are_served() -> None:
    from sglang.srt.server_args import ServerArgs

    raw = ServerArgs(model_path="any")
    for field, value in SERVABLE.items():
        assert getattr(raw, field) == value, field
    refuse_unsupported(raw)


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
