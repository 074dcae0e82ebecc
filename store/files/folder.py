"""What a folder holds: a Hugging Face model, or something else that is named."""

import os
from pathlib import Path

from store.errors import ArtifactError
from store.files.fields import Fields
from store.files.json_text import read_object
from store.files.model_file import ModelFile
from store.files.safetensors import INDEX_NAME, adapter_of, open_safetensors
from store.stored_model import StoredModel
from store.text import printable

SINGLE_NAME = "model.safetensors"
# What transformers looks for, in its order, and what is opened to be named.
_NAMES = (
    SINGLE_NAME,
    INDEX_NAME,
    "consolidated.safetensors.index.json",
    "consolidated.safetensors",
)
_ADAPTER = "adapter_"  # how the names of peft's files begin


def open_folder(folder: Path) -> StoredModel:
    """Open the SafeTensors model of a folder as transformers would; see `store.open.open_model` for the errors."""
    file = ModelFile.at(folder / _weights_name(folder))
    model = open_safetensors(file, folder)
    model.beside = tuple(_unread(folder, model.files, file.path))
    model.problems += model.beside
    return model


def _weights_name(folder: Path) -> str:
    """Return the file that transformers loads from a folder: the one that config.json names, one file, or an index.

    A lone .safetensors file of another name, which transformers does not look for, is taken where nothing else is.
    """
    named = _named_by_config(folder)
    if named is not None:
        return named
    for name in _NAMES:
        if os.path.isfile(folder / name):
            return name
    all_found = _names(folder, "*.safetensors")
    found = [name for name in all_found if not name.startswith(_ADAPTER)] or all_found
    pickled = _names(folder, "pytorch_model*.bin")  # which transformers reads before a file of another name
    if len(found) == 1 and not pickled:
        return found[0]
    shown = printable(str(folder))
    if found and not pickled:
        raise ArtifactError(
            f"{shown} holds {len(found)} .safetensors files and no {INDEX_NAME}; give the one that is meant."
        )
    raise ArtifactError(f"{shown} {_without_safetensors(folder)}")


def _named_by_config(folder: Path) -> str | None:
    if not os.path.isfile(folder / "config.json"):
        return None
    named = Fields("config.json", read_object(ModelFile.at(folder / "config.json"))).text("transformers_weights")
    if named is not None and (named in ("", ".", "..") or any(character in named for character in "/\\\0")):
        raise ArtifactError(
            f"config.json names the weights {printable(named, 80)}, which is not a plain name in its own folder."
        )
    return named


def _unread(folder: Path, read: tuple[Path, ...], chosen: Path) -> list[str]:
    """Return sentences about weights that lie in a folder beside those that are read, and are not part of the model."""
    used = {path.name for path in read} | {chosen.name}
    weights = [*_names(folder, "*.safetensors"), *_names(folder, "*.safetensors.index.json")]
    weights += [*_names(folder, "pytorch_model*.bin"), *_names(folder, "pytorch_model*.bin.index.json")]
    others = [name for name in weights if name not in used and not name.startswith(_ADAPTER)]
    adapters = [name for name in _names(folder, f"{_ADAPTER}*") if name not in used]
    problems = []
    if others:
        names = ", ".join(printable(name, 80) for name in others[:3]) + (", …" if len(others) > 3 else "")
        problems.append(
            f"{printable(folder.resolve().name)} holds {len(others)} more weight files, which are not read, as "
            f"transformers reads {printable(chosen.name, 80)}: {names}."
        )
    if adapters:
        problems.append(
            f"{printable(folder.resolve().name)} holds an adapter ({printable(adapters[0], 80)}), which is not "
            "applied: the model is read without it (transformers applies it where peft is installed)."
        )
    return problems


def _names(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


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
