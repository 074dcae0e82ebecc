"""Files of statistics without tensors: one function that decides by content which they are."""

import codecs
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.errors import StoreError
from store.text import printable
from store.traces.arrays import MAX_TEXT, parse_json
from store.whole_files import read_bounded, status_of

if TYPE_CHECKING:
    from store.traces.statistics_table import StatisticsTable

_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def open_statistics(path: Path) -> "StatisticsTable | None":
    """Open a table of statistics, ours or that of `apr trace`; None if the file is none.

    StoreError, in one sentence, for one that is malformed or holds none.
    """
    found = _read_object(path)
    if found is None:
        return None
    from store.traces.apr_statistics import apr_table, is_apr_record
    from store.traces.statistics_table import table_of

    record, sha256 = found
    if is_apr_record(record):
        return replace(apr_table(path, record), sha256=sha256)
    return replace(table_of(path, record), sha256=sha256) if "cells" in record and "scope" in record else None


def _read_object(path: Path) -> tuple[dict[str, Any], str] | None:
    """Return the JSON object that a regular file holds, with its SHA-256, or None; readers of models tell damage.

    Its text is UTF-8, or has the byte order mark that shells of Windows write.
    """
    try:
        if status_of(path.resolve()) is None:
            return None
        with path.open("rb") as file:
            start = file.read(64)
        encoding = next((name for mark, name in _ENCODINGS.items() if start.startswith(mark)), "utf-8")
        if not start.decode(encoding, "ignore").lstrip().startswith("{"):
            return None
        content = read_bounded(path.resolve(), MAX_TEXT)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return None
    try:
        found = parse_json(content.decode(encoding), printable(str(path)))
    except (UnicodeDecodeError, StoreError):
        return None
    return (found, hashlib.sha256(content).hexdigest()) if isinstance(found, dict) else None
