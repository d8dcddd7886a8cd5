"""Drafters whose vocabulary is not the target's (arXiv 2502.05202): TLI, SLEM and SLRS, without an engine.

token_bytes.py    what each id of a tokenizer stands for: bytes, or a role
mid_text.py       tokenisation of bytes in the middle of a text
intersection.py   TLI's maps between two vocabularies; intersection_cache.py keeps them on disk
incremental.py    SLEM: new draft text to target tokens; draft_history.py: committed text to draft tokens
psi.py            SLRS: the law of the target token that a drafter's text begins with; psi_rules.py: which one that is
accept.py         the acceptance rules, as functions of distributions
"""
