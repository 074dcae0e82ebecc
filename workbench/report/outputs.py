"""Where an export writes: the document, its two pictures and, if asked for, the page; none of them an input."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from store.outputs import OutputError, require_writable
from store.text import printable
from workbench.report.markdown import escaped
from workbench.session.files import FINDINGS, FINDINGS_MAPS, FINDINGS_PICTURE, OWN_FILES, SPEC_FILE
from workbench.session.session import Session

EXPORTED = "exported"  # kind of a log entry
_PAGES = (".html", ".htm")


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files of an export. own : the document is that of the session, which may be replaced without asking."""

    document: Path
    picture: Path
    maps: Path
    page: Path | None
    own: bool

    @classmethod
    def of(cls, session: Session, document: Path | None, page: Path | None) -> Self:
        """Name the files of an export; OutputError if two of them would be one."""
        own = document is None
        document = document or session.findings_path
        if document.name in ("", "..") or document.suffix.lower() == ".svg":
            raise OutputError(
                f"{printable(str(document), 1000)} is no name for the findings, whose picture becomes .svg beside "
                "them; give -o a name such as findings.md."
            )
        if document.suffix.lower() in _PAGES:
            name = printable(str(document), 1000)
            raise OutputError(f"{name} would be Markdown, not a page; write the page with --html {name}.")
        picture = document.with_suffix(".svg")
        outputs = cls(document, picture, picture.with_name(f"{picture.stem}-maps.svg"), page, own)
        if page is not None and page.absolute() in {path.absolute() for path in outputs.files[:3]}:
            raise OutputError(f"{printable(str(page), 1000)} is also the document or its picture; give --html another.")
        return outputs

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.document, self.picture, self.maps, *(() if self.page is None else (self.page,)))

    def require_writable(self, session: Session, more_inputs: Iterable[Path], force: bool) -> None:
        """Raise OutputError if a file must not be written: see store.outputs."""
        inputs = [*_inputs(session), *more_inputs]
        for output in self.files:
            option = "--html" if output == self.page else "-o"
            require_writable(output, inputs, force or (self.own and output != self.page), f"give {option} another name")

    def folder_words(self, folder: Path) -> str:
        """Say in Markdown in which folder commands are run."""
        if self.document.absolute().parent == folder:
            return "the folder of this document"
        return f"the session's folder {escaped(str(folder))}"


def _inputs(session: Session) -> list[Path]:
    """Return what a session holds and is about, but for the findings themselves."""
    spec, folder = session.spec, session.folder
    findings = (FINDINGS, FINDINGS_PICTURE, FINDINGS_MAPS)
    others = [name for name in (SPEC_FILE, *OWN_FILES) if name not in findings]
    return [Path(spec.a.path), Path(spec.b.path), session.hypotheses_folder, *(folder / name for name in others)]
