"""Export: the findings document of a session, in Markdown, with a picture of the map beside it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from store.outputs import OutputError, require_writable
from store.text import printable
from store.whole_files import read_bounded, write_atomically
from workbench.session.files import FINDINGS, FINDINGS_PICTURE, OWN_FILES, SPEC_FILE

if TYPE_CHECKING:
    from workbench.jobs.conclusion import Conclusion
    from workbench.report.investigation import Progress
    from workbench.session.session import Session

# Lines of the document: its date, those of the runs, the versions and the machine that computed them.
_WHEN_AND_WHERE = re.compile(r"^(Exported |\| run +\||- computed by: |- on: ).*$", re.MULTILINE)


def _silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing."""


class Exported(NamedTuple):
    """Where the findings are, what they conclude, and whether they were written: not if they said so already."""

    path: Path
    conclusion: "Conclusion"
    written: bool


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
    document, drawing = _rendered(facts(found, concluded, picture.name, progress)), map_svg(title, maps)
    _require_writable((target, picture), [*_inputs(session), *found.inputs], replace)
    if own and _says(target, document) and _says(picture, drawing):
        return Exported(target, concluded, written=False)
    write_atomically(picture, drawing, replace)
    write_atomically(target, document, replace)
    inside = target.absolute().is_relative_to(session.folder)
    session.log("exported", report=str(target.absolute().relative_to(session.folder)) if inside else str(target))
    return Exported(target, concluded, written=True)


def _says(path: Path, text: str) -> bool:
    """Whether a file says a text already, but for when and where it was found."""
    try:
        said = read_bounded(path, 4 * len(text.encode())).decode()
    except (OSError, ValueError):
        return False
    return _WHEN_AND_WHERE.sub("", said) == _WHEN_AND_WHERE.sub("", text)


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
