"""Export: the findings document of a session, in Markdown with two pictures beside it, and as a page."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from store.text import printable
from store.whole_files import read_bounded, write_atomically

if TYPE_CHECKING:
    from workbench.jobs.conclusion import Conclusion
    from workbench.report.investigation import Investigation, Progress
    from workbench.session.session import Session

# Lines of the document: those of the runs, the versions and the machine that computed them, which say when and where.
_WHEN_AND_WHERE = re.compile(r"^(- run: |- computed by: |- on: ).*$", re.MULTILINE)


def _silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing."""


class Exported(NamedTuple):
    """Where the findings are, what they conclude, and whether they were written: not if they said so already."""

    path: Path
    conclusion: "Conclusion"
    written: bool


def export(
    session: "Session",
    target: Path | None = None,
    progress: "Progress" = _silent,
    force: bool = False,
    lacking: Sequence[str] = (),
    page: Path | None = None,
) -> Exported:
    """Write the findings of a session to `target` (its own findings.md by default), the pictures as .svg beside it.

    lacking : what could not be measured (workbench.jobs.examining). page : where to write the page too.

    Reads what the session has captured and found: the same session gives the same bytes. Raises WorkbenchError if a
    side has nothing yet, or where a file must not be written (see store.outputs). Each file is replaced as a whole;
    files other than the session's own only if `force`.
    """
    from workbench.jobs.conclusion import Conclusion
    from workbench.report.findings import facts
    from workbench.report.investigation import investigate
    from workbench.report.outputs import EXPORTED, Outputs
    from workbench.report.summary import summarise
    from workbench.report.weight_facts import weight_facts

    outputs = Outputs.of(session, target, page)
    outputs.require_writable(session, (), force)
    found = investigate(session, progress)
    concluded = Conclusion.of(session, found.comparison)
    summary = summarise(found, concluded, tuple(lacking))
    weights = weight_facts(found.models, progress)
    texts = {
        outputs.document: _rendered(facts(found, concluded, summary, outputs, weights)),
        outputs.picture: _local_picture(found),
        outputs.maps: _maps_picture(found),
    }
    if page is not None:
        from workbench.report.page import page_html

        texts[page] = page_html(found, concluded, summary, weights)
    outputs.require_writable(session, found.inputs, force)
    if outputs.own and all(_says(path, text) for path, text in texts.items()):
        return Exported(outputs.document, concluded, written=False)
    for path, text in reversed(texts.items()):  # the document last: it names the others
        write_atomically(path, text, force or (outputs.own and path != page))
    inside = outputs.document.absolute().is_relative_to(session.folder)
    document = outputs.document.absolute()
    session.log(EXPORTED, report=str(document.relative_to(session.folder) if inside else outputs.document))
    return Exported(outputs.document, concluded, written=True)


def _says(path: Path, text: str) -> bool:
    """Whether a file says a text already, but for when and where it was found."""
    try:
        said = read_bounded(path, 4 * len(text.encode())).decode()
    except (OSError, ValueError):
        return False
    return _WHEN_AND_WHERE.sub("", said) == _WHEN_AND_WHERE.sub("", text)


def _local_picture(found: "Investigation") -> str:
    from workbench.report.local_map import LABEL, LEGEND, local_looks
    from workbench.report.map_svg import map_svg

    comparison = found.comparison
    title = printable(f"{found.session.spec.name}, all {len(comparison.a.tokens)} tokens")
    return map_svg(title, {LABEL: local_looks(comparison, found.local)}, LEGEND)


def _maps_picture(found: "Investigation") -> str:
    from workbench.report.map_svg import map_svg

    shown = found.comparison
    title = printable(f"{found.session.spec.name}, {shown.scope.label(len(shown.a.tokens))}")
    return map_svg(title, {metric.label: shown.looks(metric) for metric in shown.shown})


def _rendered(facts: dict[str, object]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from workbench.report.markdown import code_block, escaped, link, quoted, table

    environment = Environment(  # noqa: S701 (the template escapes for Markdown, not for HTML)
        loader=PackageLoader("workbench.report", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    tools = {"md": escaped, "table": table, "quoted": quoted, "code_block": code_block, "link": link}
    text: str = environment.get_template("findings.md.j2").render(**tools, **facts)
    return text
