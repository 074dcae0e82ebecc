"""Files of statistics without tensors: one function that decides by content which they are."""

from dataclasses import replace
from pathlib import Path

from store.traces.apr_statistics import apr_table, is_apr_record
from store.traces.statistics_table import StatisticsTable, read_object, table_of


def open_statistics(path: Path) -> StatisticsTable | None:
    """Open a table of statistics, ours or that of `apr trace`; None if the file is none.

    StoreError, in one sentence, for one that is malformed or holds none.
    """
    found = read_object(path)
    if found is None:
        return None
    record, sha256 = found
    if is_apr_record(record):
        return replace(apr_table(path, record), sha256=sha256)
    return replace(table_of(path, record), sha256=sha256) if "cells" in record and "scope" in record else None
