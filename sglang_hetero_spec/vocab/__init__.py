"""Drafters whose vocabulary is not the target's (arXiv 2502.05202): TLI, SLEM and SLRS, without an engine.

token_bytes.py   what each id of a tokenizer stands for: bytes (decoder_rule.py), or a role (roles.py)
mid_text.py      tokenisation of bytes in the middle of a text; boundary.py: of a short tail instead of all of it
intersection.py  TLI: the maps between two vocabularies; intersection_cache.py keeps them on disk
incremental.py   SLEM: what a drafter wrote as target tokens; draft_history.py: committed text as draft tokens
psi.py           SLRS: the law of the target token that a drafter's text begins with (psi_rules.py: which one that is),
                 exact and bounded; psi_plan.py: the same in arrays
accept.py        the acceptance rules, as functions of distributions
"""
