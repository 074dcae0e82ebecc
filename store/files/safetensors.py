"""Read SafeTensors models: a single file or a sharded index, with the config.json beside it."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kernels.errors import UnsupportedModelError
from kernels.models import family
from kernels.weight import TensorType
from store.artifact import Artifact
from store.encodings import EXPONENTS
from store.errors import ArtifactError
from store.files.fields import Fields
from store.files.hf_config import config_of, drop_unused_biases, family_of, norms_less_one, supported_fields
from store.files.json_text import read_object
from store.files.model_file import ModelFile
from store.files.packed.methods import put_together
from store.files.packed.modelopt import FILE as MODELOPT
from store.files.safetensors_header import read_header, read_index
from store.layout import by_canonical_name, by_family, check_tensors, counted
from store.names import LM_HEAD
from store.stored_model import StoredModel, TensorInfo, runnable
from store.text import printable
from store.tiles import in_tiles
from store.vocabulary import Vocabulary

INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
_TEXT_MODEL = ("text_config", "llm_config", "language_config")
_SHARD = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.safetensors", re.DOTALL | re.ASCII)


def open_safetensors(file: ModelFile, path: Path | None = None) -> StoredModel:
    """Open a .safetensors file or a sharded index; see `store.open.open_model` for the errors.

    path : what the user asked for, when it is the folder and not the file.
    """
    is_single = file.read(0, min(file.size, 8), "its start")[7:] == b"\0"  # JSON text has no zero byte
    sources, stored, problems = ([file], read_header(file), []) if is_single else read_index(file)
    tensors, wrapped = by_canonical_name(file.shown, stored)
    found = StoredModel(
        path=path or file.path,
        format="safetensors",
        tensors=tensors,
        sources=tuple(sources),
        problems=(*problems, *wrapped),
    )
    return runnable(found, lambda: _artifact(file, found))


def _artifact(file: ModelFile, found: StoredModel) -> Artifact:
    """Make of the files what can be run; what is known before that fails is kept in `found`."""
    folder = file.path.parent
    _take_settings(found, file)
    found.tensors = {name: _as_numbers(info) for name, info in found.tensors.items()}
    _refuse_parts(file, found)
    if file.beside("config.json") is None:
        shown = printable(str(folder))
        raise ArtifactError(f"{file.shown} needs the config.json of its model beside it, in {shown}; copy it there.")
    settings = _of_text_model(found.metadata)
    fields, odd_fields = supported_fields(f"{printable(folder.resolve().name)}/config.json", settings)
    tensors = dict(found.tensors)
    config, odd_settings = config_of(fields, has_lm_head=LM_HEAD in tensors)
    dropped = drop_unused_biases(file.shown, tensors, fields)
    problems, unused = check_tensors(file.shown, tensors, config)
    problems = [*odd_fields, *odd_settings, *dropped, *problems]
    if settings is not found.metadata:
        problems.append(f"{fields.file} is of several models; the settings of its text model are used.")
    moved, factors = in_tiles(file.shown, tensors, config), family(config.architecture).factors(config, fields)
    return Artifact.of(found, config, tensors, unused, problems, reordered=moved, factors=factors)


def _take_settings(found: StoredModel, source: ModelFile) -> None:
    """Keep in `found` what lies beside its tensors: the settings, under the first of their names, and a tokenizer."""
    tokenizer = source.path.with_name("tokenizer.json")
    found.vocabulary = Vocabulary("hf_json", json_path=tokenizer) if os.path.isfile(tokenizer) else None
    for name in ("config.json", ADAPTER_CONFIG, "params.json"):
        if (file := source.beside(name)) is not None:
            found.sources, found.metadata = (*found.sources, file), read_object(file)
            if found.metadata.get("quantization_config") is None and (own := source.beside(MODELOPT)) is not None:
                found.sources, found.metadata = (*found.sources, own), _with_method(own, found.metadata)
            found.less_one = norms_less_one(found.metadata)
            shown, of = found.sources[0].shown, family_of(str(found.metadata.get("model_type")))
            found.tensors = put_together(shown, found.tensors, found.metadata, found.part)
            found.tensors = by_family(shown, found.tensors, of)
            return


def _with_method(file: ModelFile, values: dict[str, object]) -> dict[str, object]:
    """Return settings that say nothing of quantization, with what ModelOpt's own file beside them says of it."""
    said = read_object(file).get("quantization")
    return values | {"quantization_config": said} if isinstance(said, dict) and said.get("quant_algo") else values


def _as_numbers(info: TensorInfo) -> TensorInfo:
    """Have a scale of powers of two, which no method took for a part of a weight, read as the floats it stands for."""
    if info.type.name != EXPONENTS.name or info.packing is not None:
        return info
    return replace(info, type=TensorType["F32"], encoding=EXPONENTS)


def _refuse_parts(file: ModelFile, found: StoredModel) -> None:
    """Raise UnsupportedModelError, saying what to give instead, for what is no whole model by Hugging Face's names."""
    folder, names = file.path.parent, [info.raw_name for info in found.tensors.values()]
    match = _SHARD.fullmatch(file.path.name)
    if match is not None and int(match[3]) > 1:
        found.is_part = True
        index = file.path.with_name(f"{match[1]}.safetensors.index.json")
        missing = "" if index.is_file() else ", which is not there"
        raise UnsupportedModelError(
            f"{file.shown} is file {int(match[2])} of the {int(match[3])} of a model; give the folder "
            f"{printable(str(folder))}, or its index {printable(index.name)}{missing}."
        )
    if any(name.endswith("layers.0.attention.wq.weight") for name in names):
        raise UnsupportedModelError(
            f"{file.shown} holds a model under Mistral's own names (consolidated, with params.json); give the files of "
            "the transformers format, which have a config.json."
        )
    if adapter := [name for name in names if ".lora_" in name]:
        raise UnsupportedModelError(
            f"{file.shown} is {adapter_of(folder)}"
            if os.path.isfile(folder / ADAPTER_CONFIG)
            else f"{file.shown} holds an adapter that is not merged into its weights, {counted(adapter)}; merge it "
            "(peft: `merge_and_unload`) and give the result."
        )


def adapter_of(folder: Path) -> str | None:
    """Say what the weights of a folder are an adapter to and what to give instead; None if they are no adapter."""
    if not os.path.isfile(folder / ADAPTER_CONFIG):
        return None
    fields = Fields(ADAPTER_CONFIG, read_object(ModelFile.at(folder / ADAPTER_CONFIG)))
    base = fields.text("base_model_name_or_path") or "a model that is not named"
    return (
        f"an adapter to {printable(base, 200)} and no model by itself; merge it into that model (peft: "
        "`merge_and_unload`) and give the result."
    )


def _of_text_model(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return the settings of the text model of a model with several parts: they stand in an object of their own.

    What stands at the top counts, unless it is the type of a model that this program does not know.
    """
    text = next((values[key] for key in _TEXT_MODEL if isinstance(values.get(key), dict)), None)
    if not isinstance(text, dict):
        return values
    if family_of(str(values.get("model_type"))) is not None:
        return text | {key: value for key, value in values.items() if value is not None}
    key = "tie_word_embeddings"
    said = [part[key] for part in (values, text) if key in part]
    return {**values, **text, **({key: True in said} if said else {})}
