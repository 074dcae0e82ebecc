"""A small trained model that ships with the program, and APR copies of it, healthy or with a named fault."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.files.apr_writer import convert_to_apr
from store.nearest import did_you_mean
from store.open import open_artifact
from store.text import printable
from store.whole_files import write_atomically
from workbench.demo.faults import FAULTS, Change
from workbench.pair.default_tokens import PROMPT
from workbench.pair.pair import DEFAULT_PATH
from workbench.pair.pairing import open_or_create
from workbench.pair.tokenizer import encode
from workbench.session.session import Session, SessionSpec, Side

MODEL = Path(__file__).parent / "tiny-qwen2-q4_k_m.gguf"
LAYER = 3
DEMO_ENTRY = "demo"  # kind of the log entry that says how a session's copy was made


@dataclass
class _Copy(Artifact):
    """An artifact some of whose tensors hold other bytes than its file."""

    changed: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def stored_rows(self, name: str) -> NDArray[np.uint8]:
        """Return the rows of a tensor, changed ones as they were changed."""
        return self.changed[name] if name in self.changed else super().stored_rows(name)


def demo_session(fault: str | None = None, layer: int = LAYER, folder: Path | None = None) -> Session:
    """Return the session of the shipped model beside an APR copy of it; what it lacks is made on the spot.

    The session folder holds both files, so that it can be moved. Raises WorkbenchError for a fault or a layer that
    does not exist, and for a folder that holds another session.
    """
    change = _change(fault, layer)
    where = f"-layer-{layer}" if change.rows else ""
    name = f"{fault or 'healthy'}{where}"
    folder = (folder or Session.default_folder(f"demo-{name}")).absolute()
    original, copy = folder / MODEL.name, folder / f"tiny-qwen2-{name}.apr"
    a, b = Side(str(original), DEFAULT_PATH["gguf"]), Side(str(copy), DEFAULT_PATH["apr"])
    session = open_or_create(folder, SessionSpec(a, b, tuple(encode(open_artifact(MODEL), PROMPT)), PROMPT))
    if entry_of(session) is None:
        session.log(DEMO_ENTRY, fault=fault, layer=layer)
    restore(session)
    return session


def entry_of(session: Session) -> dict[str, Any] | None:
    """Return the log entry that says which fault a demo's session has and where; None if it is no demo's."""
    return next((entry for entry in session.entries() if entry.get("kind") == DEMO_ENTRY), None)


def restore(session: Session) -> None:
    """Make the two files of a demo's session where they are not there, as in a session kept under version control."""
    entry = entry_of(session)
    original, copy = Path(session.spec.a.path), Path(session.spec.b.path)
    if entry is None or {original.parent, copy.parent} != {session.folder}:
        return
    if not original.exists():
        write_atomically(original, MODEL.read_bytes())
    if not copy.exists():
        make_copy(copy, entry.get("fault"), entry.get("layer"))


def make_copy(path: Path, fault: object = None, layer: object = LAYER) -> None:
    """Write an APR copy of the shipped model to `path`, healthy or with a fault in one layer."""
    model, change = open_artifact(MODEL), _change(fault, layer)
    copy = _Copy(
        path=model.path,
        format=model.format,
        config=replace(model.config, **change.config),
        tensors=model.tensors,
        sources=model.sources,
        vocabulary=model.vocabulary,
        changed=change.rows,
    )
    convert_to_apr(copy, path)


def _change(fault: object, layer: object) -> Change:
    """Return what a fault changes; WorkbenchError if there is no such fault or layer."""
    model = open_artifact(MODEL)
    layers = model.config.num_hidden_layers
    if not isinstance(layer, int) or not 0 <= layer < layers:
        raise WorkbenchError(f"there is no layer {layer}; --layer takes 0 to {layers - 1}")
    if fault is None:
        return Change()
    if not isinstance(fault, str) or fault not in FAULTS:
        meant = did_you_mean(str(fault), FAULTS, f"--fault takes one of {', '.join(FAULTS)}")
        raise WorkbenchError(f"there is no fault {printable(str(fault), 60)}; {meant}")
    return FAULTS[fault].change(model, f"model.layers.{layer}.")
