"""A small trained model that ships with the program, and APR copies of it, healthy or with a named fault."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from store.apr_writer import convert_to_apr
from store.artifact import Artifact, open_artifact
from workbench.demo.faults import FAULTS

MODEL = Path(__file__).parent / "tiny-qwen2-q4_k_m.gguf"
PROMPT = "def add(a, b):"
LAYER = 3


@dataclass
class _Copy(Artifact):
    """An artifact some of whose tensors hold other bytes than its file."""

    changed: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def stored_rows(self, name: str) -> NDArray[np.uint8]:
        """Return the rows of a tensor, changed ones as they were changed."""
        return self.changed[name] if name in self.changed else super().stored_rows(name)


def make_copy(path: Path, fault: str | None = None, layer: int = LAYER) -> None:
    """Write an APR copy of the shipped model to `path`, healthy or with a fault in one layer.

    Raises WorkbenchError for a fault or a layer that does not exist.
    """
    model = open_artifact(MODEL)
    layers = model.config.num_hidden_layers
    if not 0 <= layer < layers:
        raise WorkbenchError(f"there is no layer {layer}; --layer takes 0 to {layers - 1}")
    if fault is None:
        convert_to_apr(model, path)
        return
    if fault not in FAULTS:
        raise WorkbenchError(f"there is no fault {fault}; --fault takes one of {', '.join(FAULTS)}")
    change = FAULTS[fault].change(model, f"model.layers.{layer}.")
    config = replace(model.config, **change.config)
    convert_to_apr(
        _Copy(
            model.path,
            model.format,
            config,
            model.tensors,
            model.sources,
            vocabulary=model.vocabulary,
            changed=change.rows,
        ),
        path,
    )
