"""Plant every fault, bisect every pair, print one row per case, then the figures and the confusion table."""

import argparse
import fnmatch
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.faults.cases import Case, Outcome
from tests.faults.engine import start
from tests.faults.healthy import healthy
from tests.faults.healthy_weights import healthy_weights
from tests.faults.models import LATER_SHAPES, NEW_FAMILY_SHAPES
from tests.faults.packed_faults import packed_cases
from tests.faults.planted import LATER_PAIRS, PLACES, planted, planted_in_types
from tests.faults.traced import traced


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    arguments.add_argument("kinds", nargs="*", help="patterns of kinds of cases; all by default")
    arguments.add_argument("--formats", default="*", help="pattern of pairs of formats, such as '*iq2*'")
    arguments.add_argument("--places", type=int, default=PLACES, help="in how many places every fault is planted")
    arguments.add_argument("--peer-python", help="interpreter with torch, transformers and llama-cpp-python")
    arguments.add_argument("--json", type=Path, help="file of the results")
    given = arguments.parse_args()
    if given.peer_python:
        start(given.peer_python)

    def wanted(kind: str) -> bool:
        return _chosen(kind, given.kinds)

    with tempfile.TemporaryDirectory() as folder:
        cases = [
            *planted(given.places, chosen=wanted),
            *planted(1, pairs=LATER_PAIRS, chosen=wanted),
            *planted(1, tuple(LATER_SHAPES), chosen=wanted),
            *planted(given.places, tuple(NEW_FAMILY_SHAPES), chosen=wanted),
            *planted_in_types(bool(given.peer_python), wanted),
            *healthy(bool(given.peer_python)),
            *healthy_weights(bool(given.peer_python)),
            *packed_cases(),
        ]
        if given.peer_python:
            cases += traced(given.peer_python, Path(folder), given.places, wanted)
        else:
            sys.stderr.write(
                "runtime faults, traces of engines and types that only they make are left out: give --peer-python\n"
            )
        chosen = [case for case in cases if _chosen(case.kind, given.kinds) and _chosen(case.formats, [given.formats])]
        outcomes = [_run(case, Path(folder)) for case in chosen]
    _print_figures(outcomes)
    if given.json:
        given.json.write_text(json.dumps([outcome.record() for outcome in outcomes], indent=1))
    return 0 if all(outcome.right for outcome in outcomes) else 1


def _chosen(kind: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatch.fnmatch(kind, pattern) for pattern in patterns)


def _run(case: Case, folder: Path) -> Outcome:
    place = folder / "case"
    place.mkdir()
    outcome = case.run(place)
    shutil.rmtree(place)
    sys.stdout.write(outcome.row() + "\n")
    sys.stdout.flush()
    return outcome


def _print_figures(outcomes: list[Outcome]) -> None:
    faults = [outcome for outcome in outcomes if outcome.case.expected is not None]
    shown = [outcome for outcome in faults if outcome.visible or outcome.culprit is not None]
    well = [outcome for outcome in outcomes if outcome.case.expected is None]
    accused = [outcome for outcome in well if outcome.verdict == "divergent"]
    lines = [
        "",
        f"{len(faults)} faults of {len({outcome.case.kind for outcome in faults})} kinds, "
        f"{len(faults) - len(shown)} of them hidden by the formats of the pair and not accused",
        f"cell, factor and tensor right: {sum(outcome.right for outcome in shown)} of {len(shown)}",
        f"cause right: {sum(outcome.cause_right for outcome in shown)} of {len(shown)}",
        f"healthy pairs called divergent: {len(accused)} of {len(well)}; "
        f"verdicts: {dict(Counter(outcome.verdict for outcome in well))}",
        "",
        "expected → found",
    ]
    confusion = Counter((outcome.expected_cause, outcome.found_cause) for outcome in shown)
    lines += [f"{expected:<24} {found:<24} {count}" for (expected, found), count in sorted(confusion.items())]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
