"""The experiments of the lab that were run on a session's pair, for a report; the ledger stands by itself."""

from dataclasses import dataclass

from store.text import printable
from workbench.jobs.kept_experiments import KeptExperiment, experiments
from workbench.jobs.logged_side import Runs
from workbench.lab.experiments import ledger
from workbench.report.experiment_text import cell_of, found_facts, hidden_facts, name_of, table_lines
from workbench.session.session import Session

_WIDTH, _ROWS = 96, 16  # columns and rows of a document that people read


@dataclass(frozen=True, slots=True)
class Told:
    """What one experiment has found.

    heading : its name, its cell and its question. found, hidden : named facts, as `workbench lab` has them; series :
    lines of a table, between the two.
    """

    heading: str
    found: list[str]
    series: list[str]
    hidden: list[str]


@dataclass(frozen=True, slots=True)
class LabResults:
    """Results on this pair. stale : a sentence for each that is no longer about it."""

    ledgers: list[Told]
    experiments: list[Told]
    stale: list[str]


def lab_results(session: Session, runs: Runs) -> LabResults:
    """Return the last result of every experiment that is about these runs."""
    found, stale = experiments(session, runs)
    ledgers = [each for each in found if each.experiment == ledger.EXPERIMENT.id]
    others = [each for each in found if each.experiment != ledger.EXPERIMENT.id]
    return LabResults(
        [_told(each) for each in ledgers],
        [_told(each) for each in others],
        [f"{printable(why, 400)}." for why in stale],
    )


def _told(found: KeptExperiment) -> Told:
    record = found.record()
    heading = f"{name_of(record)}, {cell_of(record)}: {found.question}"
    facts, hidden = (
        [printable(f"{name}: {text.replace('   ', ', ')}", 1000) for name, text in named]
        for named in (found_facts(record), hidden_facts(record))
    )
    series = [printable(line, 200) for line in table_lines(found.series, _WIDTH, _ROWS)]
    return Told(printable(heading, 400), facts, series, [*hidden, printable(f"run: {found.time}", 60)])
