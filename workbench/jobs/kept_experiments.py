"""Experiments on a session's pair as its log keeps them, written once and read back with their types."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from store.errors import StoreError
from store.typed_fields import typed_fields
from workbench.jobs.logged_side import Basis, Runs, read_basis, sides_of
from workbench.lab.experiment import Result, Verdict
from workbench.lab.retractions import standing_entries
from workbench.lab.subject import Subject
from workbench.session.plain import plain
from workbench.session.session import Session

_KIND = "experiment"
_MOST_ROWS = 100  # of a series; an experiment gives the others again


@dataclass(frozen=True, slots=True)
class KeptExperiment:
    """What an experiment has found, when, and on what; the fields are those of `lab --json`, which says what they are.

    series : its first rows, of `rows` in all. beside : the figures that stand beside the value, by name.
    """

    time: str
    basis: Basis
    experiment: str
    name: str
    question: str
    claim: str
    inputs: dict[str, Any]
    series: tuple[dict[str, Any], ...]
    rows: int
    value: float | None
    beside: dict[str, Any]
    published: str | None
    reproduced: bool | None
    verdict: Verdict | None
    says: str
    shows: str
    hides: str
    against: dict[str, Any]
    notes: tuple[str, ...]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "KeptExperiment":
        """Rebuild it from an entry of the log; StoreError if nobody can have written that."""
        what = "experiment"
        found = cls(**typed_fields(cls, dict(entry) | {"basis": read_basis(entry, what)}, what))
        if any(not row or [*row] != [*found.series[0]] for row in found.series):
            raise StoreError("The series of an experiment has unlike rows.")
        return found

    def record(self) -> dict[str, Any]:
        """Return it as `lab --json` prints it, as far as it was kept."""
        facts = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("basis", "beside")
        }
        return facts | self.beside | {"figures": list(self.beside)}


def keep_experiment(session: Session, subject: Subject, result: Result) -> None:
    """Keep what an experiment has found on the pair of a session; SessionError if it cannot be written."""
    record = result.to_json()
    sides = sides_of(session, subject.pair)
    basis = Basis(sides["a"], sides["b"], subject.a.path.name, subject.b.path.name, session.spec.tokens or None)
    value = record["value"]
    kept = {field.name: record[field.name] for field in fields(KeptExperiment) if field.name in record}
    session.log(
        _KIND,
        **basis.to_json(),
        **kept
        | {
            "value": value if value is not None and math.isfinite(value) else None,
            "series": record["series"][:_MOST_ROWS],
            "rows": len(record["series"]),
            "beside": {name: record[name] for name in record["figures"]},
        },
    )


def experiments(session: Session, runs: Runs) -> tuple[list[KeptExperiment], list[str]]:
    """Return the last result of every experiment on its inputs that is about these runs; for the others why not.

    What was taken back is left out, and an entry that somebody has changed by hand into what nobody can have written.
    """
    standing: dict[str, KeptExperiment] = {}
    stale: dict[str, str] = {}
    for entry in standing_entries(session).values():
        try:
            found = KeptExperiment.from_json(entry) if entry.get("kind") == _KIND else None
        except StoreError:
            continue
        if found is None:
            continue
        named = f"{found.experiment} {sorted(plain(found.inputs).items())}"
        why = found.basis.changed_since(session, runs)
        if why is None:
            standing[named] = found
        else:
            stale[named] = f"lab {found.experiment} of {found.time} is stale: {why}"
    return list(standing.values()), [why for name, why in stale.items() if name not in standing]
