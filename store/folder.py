"""What a folder holds: a Hugging Face model, or something else that is named."""

import os
from pathlib import Path

from store.errors import ArtifactError
from store.model_file import ModelFile
from store.safetensors_file import INDEX_NAME, adapter_of, open_safetensors
from store.stored_model import StoredModel
from store.text import printable

_NAMES = (
    INDEX_NAME,
    "model.safetensors",
    "consolidated.safetensors.index.json",
    "consolidated.safetensors",
    "adapter_model.safetensors",
)


def open_folder(folder: Path) -> StoredModel:
    """Open the SafeTensors model of a folder; see `store.open.open_model` for the errors."""
    for name in _NAMES:
        if os.path.isfile(folder / name):
            return open_safetensors(ModelFile.at(folder / name), folder)
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return open_safetensors(ModelFile.at(found[0]), folder)
    shown = printable(str(folder))
    if found:
        raise ArtifactError(
            f"{shown} holds {len(found)} .safetensors files and no {INDEX_NAME}; give the one that is meant."
        )
    raise ArtifactError(f"{shown} {_without_safetensors(folder)}")


def _without_safetensors(folder: Path) -> str:
    """What a folder holds instead, and what to give."""
    for pattern, what in (("*.gguf", "GGUF files"), ("*.apr", "APR files")):
        if found := sorted(folder.glob(pattern)):
            names = ", ".join(printable(path.name, 80) for path in found[:3]) + (", …" if len(found) > 3 else "")
            return f"holds {what} and no SafeTensors model; give one of them ({names})."
    if (adapter := adapter_of(folder)) is not None:
        return f"holds {adapter}"
    pickles = sorted(path for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        return (
            f"holds its weights as {printable(pickles[0].name, 80)}, a PyTorch checkpoint, which is not read because "
            "it can run code; save them as SafeTensors (`save_pretrained`)."
        )
    if os.path.isfile(folder / "config.json"):
        return "holds a config.json and no weights; download the .safetensors files too."
    return "holds no config.json; give a Hugging Face folder or a model file."
