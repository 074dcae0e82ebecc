"""The evidence is readable in whatever room there is."""

import pytest

from workbench.app.cell.evidence import Section
from workbench.app.cell.fitting import fitting

SECTIONS = (
    Section("WHY", ("permuted_rope: reproduces B exactly", "the rows of q_proj of B are in adjacent-pair order.")),
    Section("WHERE", ("its own error is 506.1 times what rounding can cause (limit 8)", "due to weights 100%")),
    Section("PROOF", ("A's q_proj put into B: KL falls by 95.5%", "B's put into A: brings 116.2% of it")),
    Section("COST", ("KL(B‖A) 0.006369 nats, top-1 changed at 1 of 7 tokens",)),
    Section("FIX", (" ".join(["Order the rows of q and k for the rotary convention that the copy names."] * 3),)),
)


@pytest.mark.parametrize("width", [36, 44, 54])
@pytest.mark.parametrize("lines", [1, 5, 8, 12, 17, 20, 34, 60])
def test_something_of_every_section_stands_in_any_room(lines, width):
    shown = fitting(SECTIONS, lines, width)
    assert [line.heading for line in shown if line.heading] == [section.title for section in SECTIONS]
    assert len(shown) <= max(lines, len(SECTIONS))
    assert all(len(line.heading + line.text) <= width for line in shown)


def test_where_there_is_room_for_all_of_it_nothing_is_left_out():
    words = "".join(line.text for line in fitting(SECTIONS, 60, 44)).replace(" ", "")
    assert all(sentence.replace(" ", "") in words for section in SECTIONS for sentence in section.lines)
    cut = fitting(SECTIONS, 8, 44)
    assert any(line.text.endswith("…") for line in cut)
    assert fitting((), 8, 44) == []
