"""What a server keeps free for its pool, from the arguments and the files on disk, before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sglang_hetero_spec.cuda.crossover import PARTS
from sglang_hetero_spec.cuda.graphs.ladder import MOST_SIZES
from sglang_hetero_spec.cuda.reserve import DraftShape, ReserveRow, ServerShape, reserve_rows
from sglang_hetero_spec.cuda.streams import stream_bytes
from sglang_hetero_spec.cuda.support import GRAPHS_SWITCH, VERIFY_SWITCH
from sglang_hetero_spec.pool import MANIFEST_NAME, PoolError
from sglang_hetero_spec.pool.checkpoint import vocab_size
from sglang_hetero_spec.pool.pairs import has_pairs
from sglang_hetero_spec.pool.parse import parse_manifest
from sglang_hetero_spec.pool.schema import Manifest
from sglang_hetero_spec.pool.strict_json import parse_object, read_text

# Drafters with weights of their own; adapters are their base's, the others keep nothing on the device.
_WITH_MODEL = ("standalone", "sorted")


def pool_reserve(cfg: Any) -> list[ReserveRow]:
    """cfg: SGLang's resolving view, its graph sizes among it. Empty where the pool cannot be read: SGLang asks before
    HETERO has checked it, and then refuses it in better words."""
    try:
        root = Path(str(cfg.speculative_draft_model_path))
        manifest = parse_manifest(read_text(root / MANIFEST_NAME), root / MANIFEST_NAME)
        drafters = draft_shapes(root, manifest)
    except (PoolError, OSError):
        return []
    return reserve_rows(server_shape(cfg, manifest), drafters)


def draft_shapes(root: Path, manifest: Manifest) -> list[DraftShape]:
    """Draft models that will be loaded. PoolError where a config.json cannot be read."""
    shapes = []
    for drafter in manifest.drafters:
        if drafter.kind in _WITH_MODEL and drafter.path is not None:
            where = root / drafter.path / "config.json"
            size = vocab_size(parse_object(read_text(where), where)) or 0
            served = [each for each in manifest.drafters if drafter.name in (each.name, each.base)]
            trees = [(each.topk or 1) * ((each.num_steps or 1) - 1) for each in served if (each.topk or 1) > 1]
            shapes.append(DraftShape(drafter.name, size, max([1, *trees]), 2 if has_pairs(manifest) else 1))
    return shapes


def server_shape(cfg: Any, manifest: Manifest) -> ServerShape:
    from sglang.srt.arg_groups.model_override_base import model_config_of

    from sglang_hetero_spec.algorithm import DEFAULT_MAX_RUNNING_REQUESTS

    config = model_config_of(cfg)
    requests = cfg.max_running_requests or DEFAULT_MAX_RUNNING_REQUESTS
    widths = [1, manifest.merged_draft_tokens or 1]
    widths += [drafter.num_draft_tokens or (drafter.num_steps or 0) + 1 for drafter in manifest.drafters]
    windowed = getattr(config.hf_text_config, "sliding_window", None) is not None
    return ServerShape(
        vocab_size=config.vocab_size,
        context_len=config.context_len,
        max_requests=requests,
        width=max(widths),
        page_size=cfg.page_size or 1,
        graph_sizes=tuple(size for size in cfg.cuda_graph_config.decode.bs or () if size <= requests),
        layer_kinds=2 if windowed else 1,
        draft_graphs=graphs_per_model(cfg, manifest),
        in_parts=windowed or os.environ.get(VERIFY_SWITCH) == PARTS,
        stream_bytes=stream_bytes(cfg),
    )


def graphs_per_model(cfg: Any, manifest: Manifest) -> int:
    """At most: of one more token or the nodes of a tree, and of windows, wider ones too where there are pairs."""
    if os.environ.get(GRAPHS_SWITCH) == "off" or cfg.cuda_graph_config.decode.backend == "disabled":
        return 0
    return (3 if has_pairs(manifest) else 2) * MOST_SIZES
