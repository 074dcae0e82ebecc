"""The evidence in as many lines as there are: where not all of it fits, something of every section."""

import textwrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from workbench.app.cell.evidence import Section

_CUT = "…"


class Line(NamedTuple):
    """A line of the evidence: the heading, if one stands on it, and what follows."""

    heading: str
    text: str


def fitting(sections: "tuple[Section, ...]", lines: int, width: int) -> list[Line]:
    """Set sections in `lines` lines: under their headings, else beside them, the first sentences of each first."""
    if not sections:
        return []
    whole = [line for section in sections for line in _below_heading(section, width)]
    if len(whole) <= lines:
        return whole
    kept = [1] * len(sections)
    for number in range(1, max(len(section.lines) for section in sections)):
        for place, section in enumerate(sections):
            more = [*kept[:place], number + 1, *kept[place + 1 :]]
            fits = sum(len(_beside(each, few, width)) for each, few in zip(sections, more, strict=True)) <= lines
            if kept[place] == number < len(section.lines) and fits:
                kept = more
    blocks = [_beside(section, few, width) for section, few in zip(sections, kept, strict=True)]
    while sum(map(len, blocks)) > max(lines, len(blocks)):
        longest = max(blocks, key=len)
        longest.pop()
        longest[-1] = longest[-1]._replace(text=longest[-1].text[: width - 10].rstrip() + _CUT)
    return [line for block in blocks for line in block]


def _below_heading(section: "Section", width: int) -> list[Line]:
    wrapped = (textwrap.wrap(each, max(width - 2, 20), subsequent_indent="  ") for each in section.lines)
    return [Line(section.title, ""), *(Line("", f" {line}") for lines in wrapped for line in lines)]


def _beside(section: "Section", sentences: int, width: int) -> list[Line]:
    """The first sentences of a section, beginning beside its heading."""
    first, *rest = textwrap.wrap(section.lines[0], max(width - 2, 20), initial_indent=" " * (len(section.title) + 1))
    lines = [Line(section.title, f" {first.lstrip()}"), *(Line("", f"  {line}") for line in rest)]
    for sentence in section.lines[1:sentences]:
        lines += [Line("", f"  {line}") for line in textwrap.wrap(sentence, max(width - 2, 20))]
    return lines
