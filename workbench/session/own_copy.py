"""Examples: sessions that stay as they are. Whoever opens one to work on it gets a copy of their own."""

import json
import os
from contextlib import suppress
from pathlib import Path

from store.whole_files import read_bounded, write_atomically
from workbench.session.files import (
    FINDINGS,
    FINDINGS_MAPS,
    FINDINGS_PICTURE,
    HYPOTHESES,
    LOG_FILE,
    SPEC_FILE,
    SessionError,
    read_spec,
    shown,
)
from workbench.session.session import Session

EXAMPLE = "example"  # field of session.json
_FILES = (LOG_FILE, FINDINGS, FINDINGS_PICTURE, FINDINGS_MAPS)
_MAX_BYTES = 1 << 28  # of a file


def is_example(session: Session) -> bool:
    """Whether a session is an example."""
    return json.loads(read_spec(session.folder)).get(EXAMPLE) is True


def own_copy(example: Session) -> Session:
    """Return the user's copy of an example: the one that is there, with all that was done in it, or a new one.

    It lies beside the example, and holds what that does but for models and traces, which are made again. SessionError
    if it cannot be written.
    """
    place = example.folder.with_name(f"{example.folder.name}-copy")
    if not os.path.lexists(place / SPEC_FILE):
        try:
            _copy(example.folder, place)
        except OSError as error:
            why = f"The example cannot be copied to {shown(place)} ({error.strerror})"
            raise SessionError(f"{why}; copy its folder to where you may write.") from None
    return Session.open(place)


def _copy(source: Path, place: Path) -> None:
    """Copy the files of a session, session.json last, without which a folder is none; what is there stays."""
    notes = sorted(path.name for path in (source / HYPOTHESES).glob("*"))
    (place / HYPOTHESES).mkdir(parents=True, exist_ok=True)
    for name in (*_FILES, *(f"{HYPOTHESES}/{note}" for note in notes)):
        if os.path.lexists(source / name) and not os.path.lexists(place / name):
            write_atomically(place / name, read_bounded(source / name, _MAX_BYTES), replace=False)
    record = json.loads(read_spec(source))
    del record[EXAMPLE]
    with suppress(FileExistsError):  # another process has just made it
        write_atomically(place / SPEC_FILE, json.dumps(record, indent=1) + "\n", replace=False)
