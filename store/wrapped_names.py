"""Tensor names with something before them: what training wrappers, adapters and vision models put around a decoder."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from kernels.models import ARCHITECTURES, family
from store.names import EMBEDDING, LM_HEAD
from store.text import printable

# torch.compile and fully sharded or checkpointed training, which may stand anywhere within a name.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_LAYER = re.compile(r"(.*?)layers\.(?:0|[1-9][0-9]{0,5})\.input_layernorm\.weight", re.ASCII | re.DOTALL)
_EMBEDDING = EMBEDDING.removeprefix("model.")


@cache
def _before_layers() -> frozenset[str]:
    """What stands before the names of a decoder's own layers in Hugging Face's files, of any family."""
    own = (name for architecture in ARCHITECTURES for name in family(architecture).modules.values())
    return frozenset(("", "model.", *(name.partition("layers.N")[0] for name in own)))


def without_wrapper(raw_names: Sequence[str]) -> tuple[list[str | None], str | None]:
    """Return every name without what stands before the names of the decoder, and a sentence about it (None: nothing).

    The decoder is the part with the most layers of canonical names below one prefix, among those with an embedding if
    there are such. Where two have as many, none is chosen. The name of a tensor that is not part of the decoder, as
    those of a vision tower, is None.
    """
    names = [_WRAPPERS.sub("", raw) for raw in raw_names]
    found = Counter(match[1] for name in names if (match := _LAYER.fullmatch(name)))
    if not found or any(found[plain] for plain in _before_layers()):
        changed = next((raw for raw, name in zip(raw_names, names, strict=True) if raw != name), None)
        words = None if changed is None else f"names tensors as training wrappers do ({printable(changed, 80)})"
        return list(names), words and f"{words}; they are read without it."
    with_embedding = Counter({prefix: found[prefix] for prefix in found if prefix + _EMBEDDING in names})
    (prefix, layers), *others = (with_embedding or found).most_common(2)
    if others and others[0][1] == layers:
        which = " and ".join(f"{printable(each, 80)}layers…" for each in (prefix, others[0][0]))
        return list(names), f"holds two decoders of {layers} layers, {which}; which of them is meant is not known."
    head = _head_name(prefix, set(names))
    plain = [_plain(name, prefix, head) for name in names]
    outside = sum(name is None for name in plain)
    rest = f"; {outside} tensors are named otherwise and not part of it" if outside else ""
    return plain, (
        f"names the tensors of its decoder {printable(prefix, 80)}layers… where others have model.layers…; they are "
        f"read as those{rest}."
    )


def _head_name(prefix: str, names: set[str]) -> str:
    """Name of the output head: it stands beside the decoder, or beside one of the modules around it."""
    parts = prefix.split(".")[:-1]
    places = (".".join(parts[:count]) + "." if count else "" for count in range(len(parts), -1, -1))
    return next((place + LM_HEAD for place in places if place + LM_HEAD in names), LM_HEAD)


def _plain(name: str, prefix: str, head: str) -> str | None:
    if name == head:
        return LM_HEAD
    return f"model.{name.removeprefix(prefix)}" if name.startswith(prefix) else None
