"""What a model's files say of its tokenizer beside the vocabulary: special tokens by name, EOS, the chat template.

Hugging Face keeps that in tokenizer_config.json, special_tokens_map.json, chat_template.jinja and
generation_config.json (read as transformers 5.24 does), GGUF in `tokenizer.*` (as llama.cpp does), APR under the same
names.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from store.errors import ArtifactError
from store.files.fields import Fields
from store.files.json_text import read_object
from store.files.model_file import ModelFile
from store.stored_model import StoredModel

MAX_TEMPLATE = 1 << 20  # characters
TEMPLATE_FILE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TokenizerConfig(NamedTuple):
    """What files say of a tokenizer beside its vocabulary.

    special
        The text of special tokens by the names that chat templates use (`bos_token`, `eos_token`, ...).
    chat_template, template_place
        The default chat template, and the file or key that holds it; None for none.
    eos_ids
        Tokens that end a generation, as far as the files give numbers.
    bos_id
        The beginning of a text, where the files give its number.
    add_bos, add_eos
        Whether those are said to be added around every text; None where nothing says it.
    """

    special: Mapping[str, str]
    chat_template: str | None = None
    template_place: str | None = None
    eos_ids: tuple[int, ...] = ()
    bos_id: int | None = None
    add_bos: bool | None = None
    add_eos: bool | None = None


def tokenizer_config(model: StoredModel) -> TokenizerConfig:
    """Return what the files of a model say; ArtifactError where one of them cannot be read or holds something else."""
    if model.format == "safetensors":
        return _of_folder(model.files[0].parent, model.metadata)
    return _embedded(model)


def _embedded(model: StoredModel) -> TokenizerConfig:
    vocabulary, fields = model.vocabulary, Fields(model.path.name, model.metadata)
    tokens: list[str] = vocabulary.tokens.decode() if vocabulary is not None and vocabulary.tokens is not None else []
    ids = {} if vocabulary is None else {"bos_token": vocabulary.bos_id, "eos_token": vocabulary.eos_id}
    place = next((key for key in ("tokenizer.chat_template", "chat_template") if fields.text(key)), None)
    keys = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
    ends = [ids.get("eos_token"), *(fields.integer(key, low=-1, high=2**32 - 1) for key in keys)]
    return TokenizerConfig(
        special={name: tokens[number] for name, number in ids.items() if number is not None},
        chat_template=None if place is None else fields.text(place),
        template_place=place,
        eos_ids=tuple(number for number in ends if number is not None and 0 <= number < len(tokens)),
        bos_id=ids.get("bos_token"),
        add_bos=None if vocabulary is None else vocabulary.add_bos,
        add_eos=None if vocabulary is None else vocabulary.add_eos,
    )


def _of_folder(folder: Path, model: Mapping[str, object]) -> TokenizerConfig:
    config, generation = _read(folder / _CONFIG), _read(folder / "generation_config.json")
    special = {
        name: text
        for source in (_read(folder / "special_tokens_map.json"), config)  # the second counts where both have one
        for name in _NAMES
        if (text := _text(source.values.get(name))) is not None
    }
    template, place = _template(folder, config)
    whole = Fields("config.json", model)
    return TokenizerConfig(
        special=special,
        chat_template=template,
        template_place=place,
        eos_ids=tuple(dict.fromkeys([*_ids(generation), *_ids(whole)])),
        bos_id=whole.integer("bos_token_id", low=-1),
        add_bos=config.flag("add_bos_token"),
        add_eos=config.flag("add_eos_token"),
    )


def _read(path: Path) -> Fields:
    return Fields(path.name, read_object(ModelFile.at(path)) if os.path.isfile(path) else {})


def _text(value: object) -> str | None:
    """The text of a special token, which may be an object with more about it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _ids(fields: Fields) -> list[int]:
    value = fields.values.get("eos_token_id")
    several = value if isinstance(value, list) else [value]
    return [number for number in several if isinstance(number, int) and not isinstance(number, bool)]


def _template(folder: Path, config: Fields) -> tuple[str | None, str | None]:
    """The template of a file of its own counts before one in the configuration, the one named default of several."""
    path = folder / TEMPLATE_FILE
    if os.path.isfile(path):
        file = ModelFile.at(path)
        if file.size > 4 * MAX_TEMPLATE:
            raise ArtifactError(f"{file.shown} has {file.size} bytes, too many for a chat template; correct the file.")
        return file.read(0, file.size, "its text").decode("utf-8", "replace"), TEMPLATE_FILE
    value = config.values.get("chat_template")
    if isinstance(value, list):
        named = {part.get("name"): part.get("template") for part in value if isinstance(part, dict)}
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise ArtifactError(f"{_CONFIG} gives chat_template as something else than a text; correct the file.")
    return (value, _CONFIG) if value else (None, None)
