"""Proposals without a model: what followed the same tokens before, in numpy and on the host.

SGLang has such a corpus too (speculative/cpp_ngram, a trie in C++). It is not used here, because
- it must be compiled when the server starts (ninja and a C++ compiler, which a server's image need not have);
- it keeps every window of up to 18 tokens as nodes of some hundred bytes each, allocated for one corpus at the start:
  with a corpus for each drafter that is gigabytes, where this one takes 36 to 52 bytes a token;
- a match and what follows it must fit into those 18 tokens together, and a prompt is never looked into;
- what it pads a tree with is a child of the root with token 0, which may be there already: siblings are not distinct;
- its trees have no probabilities, by which they could be merged with another drafter's.
"""
