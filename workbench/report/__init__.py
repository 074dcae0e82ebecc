"""Export: the findings document of a session, in Markdown, with a picture of the map beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from store.outputs import OutputError, require_writable
from store.text import printable
from store.whole_files import write_atomically
from workbench.session.files import FINDINGS, FINDINGS_PICTURE, OWN_FILES, SPEC_FILE

if TYPE_CHECKING:
    from workbench.jobs.conclusion import Conclusion
    from workbench.report.investigation import Progress
    from workbench.session.session import Session


def _silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing."""


class Exported(NamedTuple):
    """Where the findings went, and what they conclude."""

    path: Path
    conclusion: "Conclusion"


def export(
    session: "Session", target: Path | None = None, progress: "Progress" = _silent, force: bool = False
) -> Exported:
    """Write the findings of a session to `target` (its own findings.md by default), the map as .svg beside it.

    Reads what the session has captured; raises WorkbenchError if a side has nothing yet, or where either file must not
    be written (see store.outputs). Each file is replaced as a whole; files other than the session's own only if
    `force`.
    """
    from workbench.jobs.conclusion import Conclusion
    from workbench.report.findings import facts
    from workbench.report.investigation import investigate
    from workbench.report.map_svg import map_svg

    own = target is None
    target = target or session.findings_path
    picture = _picture_of(target)
    replace = own or force
    _require_writable((target, picture), _inputs(session), replace)
    found = investigate(session, progress)
    shown = found.comparison
    title = printable(f"{session.spec.name}, {shown.scope.label(len(shown.a.tokens))}")
    maps = {metric.label: shown.looks(metric) for metric in shown.shown}
    concluded = Conclusion.of(session, shown)
    document = _rendered(facts(found, concluded, picture.name, progress))
    _require_writable((target, picture), [*_inputs(session), *found.inputs], replace)
    write_atomically(picture, map_svg(title, maps), replace)
    write_atomically(target, document, replace)
    inside = target.absolute().is_relative_to(session.folder)
    session.log("exported", report=str(target.absolute().relative_to(session.folder)) if inside else str(target))
    return Exported(target, concluded)


def _picture_of(target: Path) -> Path:
    """Return the name of the picture beside a document; OutputError if that is no other file than the document."""
    if target.name in ("", "..") or target.suffix.lower() == ".svg":
        raise OutputError(
            f"{printable(str(target), 1000)} is no name for the findings, whose picture becomes .svg beside them; "
            "give -o a name such as findings.md."
        )
    return target.with_suffix(".svg")


def _require_writable(outputs: tuple[Path, ...], inputs: list[Path], force: bool) -> None:
    for output in outputs:
        require_writable(output, inputs, force)


def _inputs(session: "Session") -> list[Path]:
    """Return what a session holds and is about, but for the findings themselves."""
    spec, folder = session.spec, session.folder
    others = [name for name in (SPEC_FILE, *OWN_FILES) if name not in (FINDINGS, FINDINGS_PICTURE)]
    return [Path(spec.a.path), Path(spec.b.path), session.hypotheses_folder, *(folder / name for name in others)]


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
