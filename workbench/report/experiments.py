"""What a session's log holds of the experiments that were made in it, for a report."""

from workbench.jobs.inquiry import PATCHED
from workbench.session.session import Session


def experiments(session: Session) -> list[str]:
    """Return a sentence for every experiment, each once, in the order they were made."""
    made = [
        f"{entry.get('part')}: {entry['conclusion']}"
        for entry in session.entries()
        if entry.get("kind") == PATCHED and "conclusion" in entry
    ]
    return list(dict.fromkeys(made))
