"""Files of statistics without tensors: one function that decides by content which they are."""

from pathlib import Path

from store.traces.apr_statistics import apr_table, is_apr_record
from store.traces.statistics_table import StatisticsTable, read_object, table_of


def open_statistics(path: Path) -> StatisticsTable | None:
    """Open a table of statistics, ours or that of `apr trace`; None if the file is none.

    StoreError, in one sentence, for one that is malformed or holds none.
    """
    record = read_object(path)
    if record is None:
        return None
    if is_apr_record(record):
        return apr_table(path, record)
    return table_of(path, record) if "cells" in record and "scope" in record else None
