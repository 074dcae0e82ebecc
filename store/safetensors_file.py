"""Read SafeTensors models: a single file or a sharded index, with the config.json beside it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from kernels.config import ModelConfig
from kernels.errors import UnsupportedModelError
from store import rope
from store.artifact import Artifact
from store.errors import ArtifactError
from store.fields import MAX_INTEGER, Fields
from store.json_text import read_object
from store.layout import by_canonical_name, check_tensors, counted
from store.model_file import ModelFile
from store.names import LM_HEAD
from store.safetensors_header import read_header, read_index
from store.stored_model import StoredModel, runnable
from store.text import printable
from store.vocabulary import Vocabulary

INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
_TEXT_MODEL = ("text_config", "llm_config", "language_config")
_SHARD = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.safetensors", re.DOTALL | re.ASCII)
# What a model_type is in the terms of kernels.config.ARCHITECTURES. A mistral without window is a llama.
_MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "mistral": "llama"}


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
    _take_settings(found, folder)
    _refuse_parts(file, found)
    if not os.path.isfile(folder / "config.json"):
        shown = printable(str(folder))
        raise ArtifactError(f"{file.shown} needs the config.json of its model beside it, in {shown}; copy it there.")
    settings = _of_text_model(found.metadata)
    fields = Fields(f"{printable(folder.resolve().name)}/config.json", settings)
    _check_supported(fields)
    tensors = dict(found.tensors)
    config = _config(fields, has_lm_head=LM_HEAD in tensors)
    problems, unused = check_tensors(file.shown, tensors, config)
    problems += _odd_settings(fields, config)
    if settings is not found.metadata:
        problems.append(f"{fields.file} is of several models; the settings of its text model are used.")
    return Artifact(
        path=found.path,
        format=found.format,
        config=config,
        unused=unused,
        tensors=tensors,
        sources=found.sources,
        problems=(*found.problems, *problems),
        metadata=found.metadata,
        vocabulary=found.vocabulary,
    )


def _take_settings(found: StoredModel, folder: Path) -> None:
    """Keep in `found` what lies beside its tensors: the settings, under the first of their names, and a tokenizer."""
    tokenizer = folder / "tokenizer.json"
    found.vocabulary = Vocabulary("hf_json", json_path=tokenizer) if os.path.isfile(tokenizer) else None
    for name in ("config.json", ADAPTER_CONFIG, "params.json"):
        if os.path.isfile(folder / name):
            file = ModelFile.at(folder / name)
            found.sources = (*found.sources, file)
            found.metadata = read_object(file)
            return


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
    if values.get("model_type") in _MODEL_TYPES:
        return text | {key: value for key, value in values.items() if value is not None}
    tied = any(part.get("tie_word_embeddings") is True for part in (values, text))
    return {**values, **text, "tie_word_embeddings": tied}


def _check_supported(fields: Fields) -> None:
    """Refuse architectures and settings that this program does not compute."""
    model_type = fields.needed_text("model_type")
    if model_type not in _MODEL_TYPES:
        raise UnsupportedModelError(
            f"{fields.file} has the model_type {printable(model_type, 80)}; supported are {', '.join(_MODEL_TYPES)}."
        )
    if isinstance(packed := fields.find("quantization")[1], dict):
        raise UnsupportedModelError(
            f"{fields.file} describes an MLX model of {printable(str(packed.get('bits')), 20)} bits, whose weights are "
            "packed beside scales and biases; undo that with `mlx_lm.convert --dequantize`, or give the original model."
        )
    if (quantization := fields.find("quantization_config")[1]) is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UnsupportedModelError(
            f"{fields.file} has a quantization_config ({printable(str(method), 80)}); supported are plain F32, F16 and "
            "BF16 tensors, or a GGUF or APR file."
        )
    activation = fields.text("hidden_act") or "silu"
    if activation != "silu":
        raise UnsupportedModelError(
            f"{fields.file} has the activation {printable(activation, 80)}; only silu is supported."
        )
    fields.refuse("use_sliding_window", "mlp_bias")
    window = fields.integer("sliding_window", low=0) if model_type == "mistral" else None
    if window is not None and window < (fields.integer("max_position_embeddings") or MAX_INTEGER):
        raise UnsupportedModelError(
            f"{fields.file} sets a sliding_window of {window} tokens, which this program does not compute; "
            "use a model without it."
        )
    layer_types = fields.find("layer_types")[1]
    if isinstance(layer_types, list) and any(kind != "full_attention" for kind in layer_types):
        raise UnsupportedModelError(f"{fields.file} has layer_types other than full_attention, the only supported one.")


def _config(fields: Fields, has_lm_head: bool) -> ModelConfig:
    hidden = fields.needed_integer("hidden_size")
    heads = fields.needed_integer("num_attention_heads")
    size = rope.head_dim(fields, hidden, heads, "head_dim")
    # transformers takes a missing num_key_value_heads as that of the heads in llama, but as 32 in qwen2, 8 in mistral.
    kv_heads = fields.integer("num_key_value_heads")
    if kv_heads is None:
        kv_heads = heads if fields.text("model_type") == "llama" else fields.needed_integer("num_key_value_heads")
    scaling = _rope_settings(fields)
    rope_theta = scaling.number("rope_theta") or fields.number("rope_theta") or 10000.0
    config = ModelConfig(
        architecture=_MODEL_TYPES[fields.needed_text("model_type")],
        num_hidden_layers=fields.needed_integer("num_hidden_layers"),
        hidden_size=hidden,
        intermediate_size=fields.needed_integer("intermediate_size"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=size,
        vocab_size=fields.needed_integer("vocab_size"),
        rms_norm_eps=fields.needed_number("rms_norm_eps"),
        rope_theta=rope_theta,
        rope_type="neox",
        tie_word_embeddings=bool(fields.flag("tie_word_embeddings")) and not has_lm_head,
        max_position_embeddings=fields.integer("max_position_embeddings"),
        rope_factors=rope.hf_factors(scaling, rope_theta, size),
    )
    rope.check_heads(fields.file, config)
    return config


def _rope_settings(fields: Fields) -> Fields:
    """Return `rope_parameters` (transformers 5) or `rope_scaling` (transformers 4); empty when there is neither."""
    key, value = fields.find("rope_parameters", "rope_scaling")
    if value is not None and not isinstance(value, dict):
        raise ArtifactError(f"{fields.file} gives {key} as something else than an object; correct the file.")
    scaling = Fields(fields.file, value or {})
    for settings in (fields, scaling):
        if settings.number("partial_rotary_factor") not in (None, 1):
            raise UnsupportedModelError(
                f"{fields.file} has a partial_rotary_factor; only heads that rotate as a whole are supported."
            )
    return scaling


def _odd_settings(fields: Fields, config: ModelConfig) -> list[str]:
    problems = []
    if fields.flag("tie_word_embeddings") and not config.tie_word_embeddings:
        problems.append(
            f"{fields.file} says tie_word_embeddings, but {LM_HEAD} is stored; the stored tensor is used "
            "(older transformers use the embedding instead)."
        )
    return problems
