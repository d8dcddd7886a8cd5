"""What one rank decides for a batch, from the requests' tags alone. `python -m tests.worker.rank SEED` prints it as
JSON; the seed changes what may differ between ranks: hashes (with PYTHONHASHSEED), the order of keys in tags, ids of
objects, how many requests the process has seen."""

from __future__ import annotations

import json
import random
import sys
from types import SimpleNamespace
from typing import Any

import torch

NAMES = ("code", "maths", "words", "copies", "off")
RIDS = [f"request-{number}" for number in range(11)]
NUM_IDS = 500


def requests() -> list[dict[str, Any]]:
    """Tags as the tokenizer process makes them: the same bytes for every rank."""
    rng = random.Random(1)
    tags = []
    for _ in RIDS:
        one, two = rng.sample(NAMES[:4], 2)
        tag = {"task": rng.choice([None, "sql"]), "drafter": one, "confidence": rng.random(), "source": "router"}
        tags.append(tag | ({"drafters": [one, two]} if rng.random() < 0.4 else {}))
    tags[3] = {"task": None, "drafter": "off", "confidence": None, "source": "request"}
    return tags


def committed() -> list[list[int]]:
    rng = random.Random(2)
    texts = []
    for _ in RIDS:
        phrase = [rng.randrange(NUM_IDS) for _ in range(7)]
        texts.append([*phrase, *(rng.randrange(NUM_IDS) for _ in range(3)), *phrase[:5]])
    return texts


def reqs_of(seed: int, worker: Any) -> list[Any]:
    from sglang_hetero_spec.worker import routing_hooks
    from sglang_hetero_spec.worker.request_state import _serials

    rng = random.Random(seed)
    for _ in range(rng.randrange(9)):
        next(_serials)
    routing_hooks.is_on = lambda: True
    scheduler = SimpleNamespace(draft_worker=worker)
    made = []
    for rid, tag, text in zip(RIDS, requests(), committed(), strict=True):
        keys = list(tag)
        rng.shuffle(keys)
        params = SimpleNamespace(
            custom_params={"hetero": {key: tag[key] for key in keys}},
            frequency_penalty=0.5 if rid.endswith("7") else 0.0,
            presence_penalty=0.0,
            repetition_penalty=1.0,
            min_new_tokens=0,
        )
        req = SimpleNamespace(
            rid=rid, sampling_params=params, custom_logit_processor=None, origin_input_ids=text, output_ids=[]
        )
        routing_hooks.attach_request_state(req, scheduler, None)
        made.append(req)
    return made


def worker_of(seed: int, history: Any) -> Any:
    """HeteroWorker with a real n-gram drafter; drafters with models continue each request's tokens by a rule."""
    from sglang_hetero_spec.drafters.base import DraftBatch, Drafter
    from sglang_hetero_spec.drafters.ngram import NgramDrafter
    from sglang_hetero_spec.drafters.none import NoneDrafter
    from sglang_hetero_spec.drafters.tree import DraftTree, chain
    from sglang_hetero_spec.pool import DrafterSpec
    from sglang_hetero_spec.worker.committed import CommittedTokens
    from sglang_hetero_spec.worker.hetero_worker import HeteroWorker

    class Rule(Drafter):
        max_seq_len = 5000

        def propose(self, batch: DraftBatch) -> DraftTree:
            steps = torch.arange(self.spec.num_draft_tokens) * (1 + len(self.spec.name))
            tokens = (batch.root_tokens.unsqueeze(1) + steps) % NUM_IDS
            scores = -0.3 * torch.arange(tokens.shape[1]).expand(tokens.shape) - len(self.spec.name) / 10
            return chain(tokens, num_fed=1, scores=scores)

    reader = CommittedTokens()
    reader.attach(history)
    specs = [DrafterSpec(name, "standalone", None, "shared", 3 + n, 1, 4 + n) for n, name in enumerate(NAMES[:3])]
    specs += [DrafterSpec("copies", "ngram", None, "shared", 5, 2, 8, capacity=1 << 12)]
    specs += [DrafterSpec("off", "none", None, "shared", 0, 1, 1)]
    made = {}
    # Objects made in another order have other ids in another order.
    for spec in random.Random(seed).sample(specs, len(specs)):
        kinds = {"ngram": lambda spec: NgramDrafter(spec, reader, NUM_IDS), "none": NoneDrafter}
        made[spec.name] = kinds.get(spec.kind, Rule)(spec)
    worker = HeteroWorker.__new__(HeteroWorker)
    index = {spec.name: number for number, spec in enumerate(specs)}
    pool = SimpleNamespace(drafters=specs, widest=16, fallback_drafter="code", drafter_index=index.__getitem__)
    worker.__dict__.update(
        _models=SimpleNamespace(pool=pool),
        _heirs={},
        drafters=[made[spec.name] for spec in specs],
        metrics=SimpleNamespace(count_request=lambda route: None),
    )
    return worker


def decide(seed: int) -> dict[str, Any]:
    from sglang_hetero_spec.drafters.base import DraftBatch
    from sglang_hetero_spec.worker import hetero_worker
    from sglang_hetero_spec.worker.history import TokenHistory
    from sglang_hetero_spec.worker.merge import Proposal, combine_proposals, merge_trees
    from sglang_hetero_spec.worker.request_state import state_of

    history = TokenHistory(len(RIDS), 64, "cpu")
    for row, text in enumerate(committed()):
        history.tokens[row, : len(text)] = torch.tensor(text)
    hetero_worker.heirs = lambda pool: {}
    worker = worker_of(seed, history)
    reqs = reqs_of(seed, worker)
    shares = worker._split(reqs)
    roots = torch.tensor([text[-1] for text in committed()])
    lens = torch.tensor([len(text) - 1 for text in committed()])
    proposals = []
    for share in shares:
        drafter = worker.drafters[share.drafters[0]]
        for place in share.places:
            drafter.admit(RIDS[place])
        places = torch.tensor(share.places)
        batch = DraftBatch(
            rows=places,
            seq_lens=lens[places],
            root_tokens=roots[places],
            newcomers=tuple(range(len(share.places))),
            newcomer_lens=tuple(lens[places].tolist()),
            rids=tuple(RIDS[place] for place in share.places),
            wants_scores=any(len(state_of(reqs[place]).drafters) > 1 for place in share.places),
        )
        proposals.append(Proposal(share.places, places, share.drafters, drafter.propose(batch)))
    proposals = combine_proposals(proposals, worker.pool.widest)
    width = max(proposal.tree.width for proposal in proposals)
    merged = merge_trees(roots, proposals, width)
    return {
        "drafters": [list(state_of(req).drafters) for req in reqs],
        "shares": [[share.places, share.drafters] for share in shares],
        "width": width,
        "depth": merged.depth,
        "tokens": merged.tokens.tolist(),
        "parents": merged.parents.tolist(),
        "num_fed": list(merged.num_fed),
    }


if __name__ == "__main__":
    from sglang_hetero_spec import cpu

    cpu.enable()
    print(json.dumps(decide(int(sys.argv[1]))))
