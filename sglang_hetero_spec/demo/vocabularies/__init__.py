"""Drafters for the demo's target whose tokenizers are of other families: made here, as tests and benchmarks use them.

texts.py      what the tokenizers are trained on
families.py   byte-level BPE of another vocabulary, SentencePiece with byte fallback, plain bytes
make.py       the command that makes them, and a drafter with the target's own tokenizer in the same way
"""
