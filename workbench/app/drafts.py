"""What was written but not yet saved as a hypothesis, kept through crashes: drafts.json in the session folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernels.stages import Site
from store.whole_files import write_atomically
from workbench.session.files import DRAFTS, SessionError, read_drafts


@dataclass(frozen=True, slots=True)
class Draft:
    """What the user writes of a hypothesis: prediction is what a measurement could contradict."""

    title: str = ""
    claim: str = ""
    prediction: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing has been written."""
        return not (self.title or self.claim or self.prediction)


class Drafts:
    """The drafts of a session, one for each site."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / DRAFTS

    def get(self, site: Site) -> Draft:
        """Return the draft about a site, an empty one if there is none."""
        record = self._read().get(str(site))
        if not isinstance(record, dict):
            return Draft()
        return Draft(*(str(record.get(field, "")) for field in ("title", "claim", "prediction")))

    def put(self, site: Site, draft: Draft) -> None:
        """Keep a draft, or take it away when it is empty."""
        records = self._read()
        records.pop(str(site), None)
        if not draft.empty:
            records[str(site)] = asdict(draft)
        if not records:
            self._path.unlink(missing_ok=True)
        else:
            write_atomically(self._path, json.dumps(records, indent=1, ensure_ascii=False))

    def _read(self) -> dict[str, Any]:
        try:
            records = json.loads(read_drafts(self._path.parent))
        except (SessionError, ValueError, RecursionError):
            return {}
        return records if isinstance(records, dict) else {}
