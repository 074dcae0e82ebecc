"""`python -m benchmarks [ROWS...]`: measure the rows whose keys match the patterns, print a table, write JSON."""

import argparse
import os
import sys
from fnmatch import fnmatch
from pathlib import Path

from benchmarks import (
    bisect_rows,
    forward_rows,
    product_rows,
    scaling_rows,
    screen_rows,
    store_rows,
    tensor_rows,
    type_rows,
)
from benchmarks.builds import build
from benchmarks.peer import ROOT, PeerError
from benchmarks.report import Result, as_table, write_json
from benchmarks.rows import Bench, Row


def all_rows() -> list[Row]:
    """Every row, in the order of the table."""
    modules = (forward_rows, bisect_rows, product_rows, screen_rows, type_rows, tensor_rows, store_rows, scaling_rows)
    return [row for module in modules for row in module.rows()]


def chosen_rows(patterns: list[str]) -> list[Row]:
    """The rows whose keys match a pattern (shell style), all without patterns; SystemExit if one matches nothing."""
    rows = all_rows()
    unknown = [pattern for pattern in patterns if not any(fnmatch(row.key, pattern) for row in rows)]
    if unknown:
        raise SystemExit(f"no row is called {unknown[0]}; there are {', '.join(row.key for row in rows)}")
    return [row for row in rows if not patterns or any(fnmatch(row.key, pattern) for pattern in patterns)]


def main() -> int:
    """Exit code 0 if every row reached what it must, 1 if one did not, 2 if one could not be measured."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    arguments.add_argument("rows", nargs="*", metavar="ROWS", help="row keys or patterns such as 'ggml-*'")
    arguments.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where models and results are kept")
    arguments.add_argument("--json", type=Path, help="file of the results; results.json in the folder by default")
    arguments.add_argument("--peer-python", type=Path, default=ROOT / ".venv-peers/bin/python")
    arguments.add_argument("--threads", type=int, default=2, help="of both sides; 1 on a machine that others use")
    arguments.add_argument("--processor", action="store_true", help="time of the processor, which others disturb least")
    arguments.add_argument("--against", metavar="FOLDER|REVISION", help="another build, beside the screen-* rows")
    given = arguments.parse_args()
    quick = os.environ.get("BENCH_QUICK", "0") not in ("", "0")
    with build(given.against) as against:
        bench = Bench(given.folder, given.peer_python, quick, given.threads, against, given.processor)
        results = []
        for row in chosen_rows(given.rows):
            sys.stderr.write(f"{row.key} …\n")
            results.append(_measure(bench, row))
    sys.stdout.write(as_table(bench, results) + "\n")
    write_json(given.json or given.folder / "results.json", bench, results)
    if any(result.measured is None for result in results):
        return 2
    return int(any(result.verdict == "MISSED" for result in results))


def _measure(bench: Bench, row: Row) -> Result:
    load = os.getloadavg()[0]
    try:
        return Result(row, row.measure(bench), None, load)
    except PeerError as error:
        return Result(row, None, str(error), load)


if __name__ == "__main__":
    sys.exit(main())
