"""Checks of a session's pair against contracts as its log keeps them, written once and read back with their types."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import StoreError
from store.typed_fields import typed_fields
from store.whole_files import read_bounded
from workbench.jobs.logged_side import Basis, Runs, read_basis, side_of
from workbench.lab.bindings import MAX_CONTRACT, changed, contract_key
from workbench.lab.contracts.checking import Check, RuleVerdict, Verdict
from workbench.lab.contracts.reading import SHIPPED
from workbench.lab.contracts.words import headline, measured_text, place_text
from workbench.lab.measurements import Measurements
from workbench.lab.retractions import standing_entries
from workbench.session.session import Session, relative_to

_KIND = "contract"


@dataclass(frozen=True, slots=True)
class KeptRule:
    """A rule and what became of it. measured_words, where_words : value and place of the worst place for readers."""

    id: str
    line: int
    verdict: RuleVerdict
    measured_words: str
    where_words: str
    bound: str
    compared: int
    expected: int
    note: str | None


@dataclass(frozen=True, slots=True)
class KeptCheck:
    """What became of a contract, when, and on what.

    file : of the contract, None for one that ships with the program; sha256 : of what was in it. counts : rules by
    verdict, in words.
    """

    time: str
    basis: Basis
    contract: str
    file: str | None
    sha256: str
    verdict: Verdict
    headline: str
    rules: tuple[KeptRule, ...]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "KeptCheck":
        """Rebuild it from an entry of the log; StoreError if nobody can have written that."""
        what = "check of a contract"
        rules = entry.get("rules")
        read = tuple(
            KeptRule(**typed_fields(KeptRule, rule, what)) for rule in (rules if isinstance(rules, list) else ())
        )
        return cls(**typed_fields(cls, dict(entry) | {"basis": read_basis(entry, what), "rules": read}, what))

    def stale_because(self, session: Session, runs: Runs) -> str | None:
        """Why it is not about what a session holds now, in a sentence without an end; None if it is."""
        if why := self.basis.changed_since(session, runs):
            return why
        path = SHIPPED.get(self.contract) if self.file is None else session.folder / self.file
        now = None if path is None else _digest(path)
        return changed(contract_key(self.contract)) if now not in (None, self.sha256) else None


def keep_check(session: Session, found: Check, pair: Measurements) -> None:
    """Keep what became of a contract in the log of its pair's session; SessionError if it cannot be written."""
    facts, contract = pair.provenance(), found.contract
    a, b = (side_of(session, source) for source in pair.sources)
    tokens = None if facts["tokens"] is None else tuple(facts["tokens"])
    basis = Basis(a, b, facts["a"]["numeric_path"], facts["b"]["numeric_path"], tokens)
    rules = [
        result.to_json() | {"measured_words": measured_text(result), "where_words": place_text(result)}
        for result in found.results
    ]
    session.log(
        _KIND,
        **basis.to_json(),
        **found.to_json() | {"rules": rules},
        file=None if contract.file is None else relative_to(session.folder, contract.file.absolute()),
        sha256=contract.sha256,
        headline=headline(found),
    )


def checks(session: Session, runs: Runs) -> tuple[list[KeptCheck], list[str]]:
    """Return the last check against every contract that is about these runs, and for the others why there is none.

    What was taken back is left out, and an entry that somebody has changed by hand into what nobody can have written.
    """
    standing: dict[tuple[str, str | None], KeptCheck] = {}
    stale: dict[tuple[str, str | None], str] = {}
    for entry in standing_entries(session).values():
        try:
            found = KeptCheck.from_json(entry) if entry.get("kind") == _KIND else None
        except StoreError:
            continue
        if found is None:
            continue
        why = found.stale_because(session, runs)
        if why is None:
            standing[found.contract, found.file] = found
        else:
            stale[found.contract, found.file] = f"the check against {found.contract} of {found.time} is stale: {why}"
    return list(standing.values()), [why for name, why in stale.items() if name not in standing]


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(read_bounded(path, MAX_CONTRACT)).hexdigest()
    except (OSError, ValueError):
        return None
