"""Text made to hurt."""

from __future__ import annotations

from hypothesis import strategies as st

HARD = (
    "😀", "👍🏽", "👨‍👩‍👧", "❤️", "e\u0301", "a\u0308\u0323", "\u0301", "中国", "語の", "汉字", "السلام", "عليكم",
    "\t", "\r\n", "\n\n", " ", "  ", " " * 9, " " * 40, "▁", "\u00a0", "\u200b", "\ufeff", "\u2028", "Straße", "ﬁ",
    "'t", "'ll", "don't", "</s>", "<s>", "<0x41>", "<tool>", "     ", "Donaudampfschifffahrtsgesellschaft" * 3,
    "1234567", "x = y[i]", "def f(self):\n    return", "hello", " world", ".", "(", ");\n",
    "\x00", "\x7f", "\U0010ffff",
)  # fmt: skip

texts = st.lists(
    st.one_of(st.sampled_from(HARD), st.text(max_size=4), st.text("abc de\n", max_size=8)), max_size=8
).map("".join)

# Also bytes that are no UTF-8.
hard_bytes = st.lists(st.one_of(texts.map(str.encode), st.binary(max_size=4)), max_size=4).map(b"".join)
