"""Export: the findings document of a session, in Markdown, with a picture of the map beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from store.files import write_atomically
from store.text import printable

if TYPE_CHECKING:
    from workbench.conclusion import Conclusion
    from workbench.report.investigation import Progress
    from workbench.session import Session


def _silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing."""


class Exported(NamedTuple):
    """Where the findings went, and what they conclude."""

    path: Path
    conclusion: "Conclusion"


def export(session: "Session", target: Path | None = None, progress: "Progress" = _silent) -> Exported:
    """Write the findings of a session to `target` (its own findings.md by default), the map as .svg beside it.

    Reads what the session has captured; raises WorkbenchError if a side has nothing yet. Each file is replaced as a
    whole.
    """
    from workbench.conclusion import Conclusion
    from workbench.report.findings import facts
    from workbench.report.investigation import investigate
    from workbench.report.map_svg import map_svg

    target = target or session.findings_path
    picture = target.with_suffix(".svg")
    found = investigate(session, progress)
    shown = found.comparison
    title = printable(f"{session.spec.name}, {shown.scope.label(len(shown.a.tokens))}")
    maps = {metric.label: shown.looks(metric) for metric in shown.shown}
    concluded = Conclusion.of(session, shown)
    document = _rendered(facts(found, concluded, picture.name, progress))
    write_atomically(picture, map_svg(title, maps))
    write_atomically(target, document)
    inside = target.absolute().is_relative_to(session.folder)
    session.log("exported", report=str(target.absolute().relative_to(session.folder)) if inside else str(target))
    return Exported(target, concluded)


def _rendered(facts: dict[str, object]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from workbench.report.markdown import code_block, escaped, quoted, table

    environment = Environment(  # noqa: S701 (the template escapes for Markdown, not for HTML)
        loader=PackageLoader("workbench.report", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    tools = {"md": escaped, "table": table, "quoted": quoted, "code_block": code_block}
    text: str = environment.get_template("findings.md.j2").render(**tools, **facts)
    return text
