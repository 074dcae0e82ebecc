"""Text from files, before it is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model.norm.weight", "model.norm.weight"),
        ("größe 数", "größe 数"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb\r\t", "a\\x0ab\\x0d\\x09"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\u200b\u2028", "\\u200b\\u2028"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\x9b2J", "\\x9b2J"),  # the one-byte form of escape-[
    ],
)
def test_examples(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters()), st.integers(1, 50))
def test_the_result_is_printable_and_bounded(text, limit):
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= 10 * limit + 1
    assert shown.endswith("…") or len(text) <= limit
    shown.encode()
