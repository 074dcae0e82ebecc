"""What a session's log holds of its bisection and of the experiments that followed, for a report."""

from typing import Any

from store.text import printable
from workbench.inquiry import PATCHED, last_bisection
from workbench.session import Session


def bisection_facts(session: Session) -> dict[str, Any]:
    """Return the lines of the last verdict, and a sentence for every experiment; both may be empty."""
    found = last_bisection(session)
    lines = [] if found is None else [printable(line, 1000) for line in str(found["text"]).splitlines()]
    experiments = [
        f"{entry.get('part')}: {entry['conclusion']}"
        for entry in session.entries()
        if entry.get("kind") == PATCHED and "conclusion" in entry
    ]
    return {"lines": lines, "experiments": list(dict.fromkeys(experiments))}
