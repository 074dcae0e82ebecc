"""The contracts that a session's pair was checked against, for a report."""

from collections.abc import Iterator
from dataclasses import dataclass

from store.text import printable
from workbench.jobs.kept_checks import KeptCheck, KeptRule, checks
from workbench.jobs.logged_side import Runs
from workbench.session.session import Session

_HASH = 12  # digits that readers compare


@dataclass(frozen=True, slots=True)
class Contracts:
    """Every contract with its table, and a sentence for every check that is no longer about this pair."""

    tables: list["ContractTable"]
    stale: list[str]


@dataclass(frozen=True, slots=True)
class ContractTable:
    """What became of a contract.

    rows : a row for every rule, the heading first. broken : a sentence for every rule that is not met. checked : when,
    and on what.
    """

    headline: str
    rows: list[list[object]]
    broken: list[str]
    checked: str


def contracts(session: Session, runs: Runs) -> Contracts:
    """Return the last check against every contract that is about these runs."""
    found, stale = checks(session, runs)
    return Contracts([_table(each) for each in found], [f"{printable(why, 400)}." for why in stale])


def _table(check: KeptCheck) -> ContractTable:
    rows: list[list[object]] = [["verdict", "rule", "measured", "where", "bound", "compared", "line"]]
    for rule in check.rules:
        verdict = rule.verdict if rule.verdict == "met" else rule.verdict.upper()
        place, compared = rule.where_words or "-", f"{rule.compared}/{rule.expected}"
        rows.append([verdict, rule.id, rule.measured_words, place, rule.bound, compared, rule.line])
    return ContractTable(printable(check.headline, 200), rows, list(_broken(check)), _checked(check))


def _broken(check: KeptCheck) -> Iterator[str]:
    for rule in check.rules:
        if rule.verdict != "met":
            yield printable(f"{rule.id}: {_found(rule)}.", 1000)


def _found(rule: KeptRule) -> str:
    at = f" at {rule.where_words}" if rule.where_words else ""
    measured = "" if rule.measured_words == "-" else f", measured {rule.measured_words}{at}"
    return f"{rule.bound}{measured}" + (f"; {rule.note}" if rule.note else "")


def _checked(check: KeptCheck) -> str:
    file = "which comes along" if check.file is None else f"file {check.file}"
    basis = check.basis
    on = "" if basis.tokens is None else f", over {len(basis.tokens)} tokens, paths {basis.path_a} and {basis.path_b}"
    text = f"Checked {check.time} against {check.contract} ({file}, sha256 {check.sha256[:_HASH]}…){on}."
    return printable(text, 1000)
