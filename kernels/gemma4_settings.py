"""What files say of the layers of gemma4: heads of both kinds, what layers share, how wide they are."""

from dataclasses import replace
from typing import Any

import numpy as np

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.family import Settings

OF_FULL = ("global_head_dim", "num_global_key_value_heads", "per_layer_config")
BY_LAYER, ROWS, SHARED = "hidden_size_per_layer_input", "vocab_size_per_layer_input", "num_kv_shared_layers"
WIDE = "use_double_wide_mlp"
GGUF_BY_LAYER, GGUF_SHARED = "embedding_length_per_layer_input", "attention.shared_kv_layers"
_WIDTHS = "feed_forward_length"
_STILL = float(np.float32(1e30))  # what converters divide the frequencies of pairs by that do not turn


def shared_as_in_llama_cpp(config: ModelConfig) -> bool:
    """Whether layers that share keys share those that llama.cpp takes: of the last that has its own, or the one before.

    The second of them is for sliding layers.
    """
    own = config.num_hidden_layers - config.shared_kv_layers
    shared = range(own, config.num_hidden_layers)
    return own >= 2 and all(config.kv_layer(layer) == own - (2 if config.slides(layer) else 1) for layer in shared)


def without_both(config: ModelConfig, fields: Settings) -> ModelConfig:
    """The configuration, which does not have wider layers beside experts."""
    if config.num_experts and config.intermediate_sizes is not None:
        raise fields.unsupported("has experts beside wider feed-forward blocks, which this program does not compute.")
    return config


def of_layers(config: ModelConfig, types: tuple[str, ...], fields: Settings) -> dict[str, Any]:
    """What folders say of embeddings of every layer, and of those that share keys and values of earlier ones."""
    size, shared = fields.integer(BY_LAYER, low=0) or 0, fields.integer(SHARED, low=0) or 0
    rows, own = fields.integer(ROWS), config.num_hidden_layers - shared
    if size and rows != config.vocab_size:
        raise fields.unsupported(
            f"gives {ROWS} as {rows}, and vocab_size as {config.vocab_size}; only tables of as many rows are supported."
        )
    if shared and (own < 1 or set(types[:own]) != set(types)):
        raise fields.wrong(f"gives {SHARED} as {shared}, which leaves no layer of each kind with its own; correct it.")
    plain = config.intermediate_size
    wide = (plain,) * own + (2 * plain,) * shared if fields.flag(WIDE) and shared else None
    return {"layer_embedding_size": size, "shared_kv_layers": shared, "intermediate_sizes": wide}


def gguf_of_layers(config: ModelConfig, types: tuple[str, ...], fields: Settings) -> dict[str, Any]:
    """The same of GGUF, which gives the channels of feed-forward blocks layer by layer where they differ."""
    size, shared = fields.integer(GGUF_BY_LAYER, low=0) or 0, fields.integer(GGUF_SHARED, low=0) or 0
    if shared:
        given = replace(config, layer_types=types, shared_kv_layers=min(shared, config.num_hidden_layers))
        own = types[: config.num_hidden_layers - shared]
        if set(own) != set(types) or not shared_as_in_llama_cpp(given):
            raise fields.unsupported(
                f"shares keys and values in its last {shared} layers ({GGUF_SHARED}), before which there is not a "
                "sliding layer and a full one, of which llama.cpp takes them."
            )
    _, widths = fields.find(_WIDTHS)
    if isinstance(widths, list):
        widths = tuple(widths[: config.num_hidden_layers])
        if len(widths) < config.num_hidden_layers or not all(type(n) is int and 0 < n < 1 << 31 for n in widths):
            raise fields.wrong(f"gives {_WIDTHS} not as a number above 0 for every layer; convert it again.")
        widths = widths if len(set(widths)) > 1 else None
    else:
        widths = None
    return {"layer_embedding_size": size, "shared_kv_layers": shared, "intermediate_sizes": widths}


def checked(config: ModelConfig, fields: Settings) -> ModelConfig:
    """The configuration, whose query heads divide among those of keys in all layers and turn in pairs."""
    counts = config.num_key_value_heads, config.full_kv_heads or 1
    if any(config.num_attention_heads % count for count in counts) or config.head_dim % 2 or _odd(config.full_head_dim):
        raise fields.wrong(
            f"gives {config.num_attention_heads} attention heads of {config.head_dim} and {config.full_head_dim} "
            f"channels, and {counts[0]} and {counts[1]} of keys; the first must divide, of an even size up to 16384."
        )
    return config


def _odd(size: int | None) -> bool:
    return size is not None and (size % 2 != 0 or size > 1 << 14)


def full_heads(fields: Settings, types: tuple[str, ...], alike: bool) -> tuple[int, int | None]:
    """The channels of a head of full layers, and how many of keys there are; None for as many as in the others."""
    given = fields.find("per_layer_config")[1]
    if given is None:
        size, heads = fields.integer(OF_FULL[0]), fields.integer(OF_FULL[1]) if alike else None
        if size is None:
            raise fields.wrong(f"gives null as {OF_FULL[0]}; correct it.")
        return size, heads
    full = {str(layer) for layer, kind in enumerate(types) if kind == FULL}
    own = list(given.values()) if isinstance(given, dict) and given.keys() == full else []
    known = [one for one in own if isinstance(one, dict) and one == own[0] and one.keys() <= _OF_ONE]
    size, heads = (known[0].get(key) for key in ("head_dim", "num_key_value_heads")) if known else (None, None)
    if len(known) != len(full) or type(size) is not int or size < 1 or not (heads is None or type(heads) is int):
        raise fields.unsupported(
            "gives a per_layer_config that is not one head_dim, and one num_key_value_heads, for all full layers and "
            "for those only."
        )
    if heads is not None and heads < 1:
        raise fields.wrong("gives fewer than one of num_key_value_heads in per_layer_config; correct it.")
    return size, heads


_OF_ONE = {"head_dim", "num_key_value_heads"}


def gguf_heads(config: ModelConfig, fields: Settings, types: tuple[str, ...]) -> tuple[int, int]:
    """How many heads of keys sliding layers have, and full ones."""
    _, given = fields.find("attention.head_count_kv")
    given = config.num_attention_heads if given is None else given
    counts = given if isinstance(given, list) else [given] * len(types)
    if len(counts) < len(types) or not all(type(count) is int and count > 0 for count in counts):
        raise fields.wrong("gives attention.head_count_kv not as a number above 0 for every layer; convert it again.")
    found = [{count for count, kind in zip(counts, types, strict=False) if kind == of} for of in (SLIDING, FULL)]
    if any(len(several) > 1 for several in found):
        raise fields.unsupported("has other attention.head_count_kv among layers of one kind; that is not supported.")
    sliding, full = (min(several or found[0] | found[1]) for several in found)
    return sliding, full


def turning(size: int, fields: Settings) -> tuple[float, ...] | None:
    """Divisors by which the first pairs of a head turn as in a head that turns as a whole, and the others do not."""
    rope = fields.within("rope_parameters")
    full, sliding = rope.within(FULL), rope.within(SLIDING)
    if None in (full.number("rope_theta"), sliding.number("rope_theta")) or full.text("rope_type") is None:
        raise fields.wrong("does not give rope_type and rope_theta in rope_parameters for both kinds of layers.")
    if full.number("factor") not in (None, 1):
        raise fields.unsupported(f"gives rope_parameters.{FULL}.factor, which this program does not compute.")
    share = full.number("partial_rotary_factor")
    if full.text("rope_type") != "proportional":
        return None
    turned = int((1.0 if share is None else share) * size // 2)
    if turned > size // 2:
        raise fields.wrong(f"gives rope_parameters.{FULL}.partial_rotary_factor above 1; correct it.")
    return (1.0,) * turned + (_STILL,) * (size // 2 - turned)
