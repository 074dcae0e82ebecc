"""The heads of a model whether it can be run or not: which tensors are q and k, and their rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.rows.dequantize import dequantize_rows
from kernels.weight import TensorType
from store.artifact import Artifact
from store.conventions import architecture
from store.names import settings_of
from store.stored_model import StoredModel

_MOST = 1 << 28  # values of q or k of one layer; nothing larger is looked at


@dataclass(frozen=True, slots=True)
class Heads:
    """q, k : how many heads there are; 0 where it is not known. size : rows of one. rotated : those that rotate."""

    model: StoredModel
    q: int = 0
    k: int = 0
    size: int | None = None
    rotated: int | None = None

    @classmethod
    def of(cls, model: StoredModel) -> "Heads":
        """By the configuration, or the settings as the file has them."""
        if isinstance(model, Artifact):
            c = model.config
            return cls(model, c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.rotary_dim or c.head_dim)
        start = f"{architecture(model)}." if "general.architecture" in model.metadata else ""
        q = _whole(model, f"{start}attention.head_count", "num_attention_heads", "num_heads")
        k = _whole(model, f"{start}attention.head_count_kv", "num_key_value_heads", "num_kv_heads") or q
        name = next((name for name in model.tensors if name.endswith("self_attn.q_proj.weight")), None)
        rows = model.tensors[name].shape[0] if name else 0
        if not q or not k or not rows or rows % q or q % k:
            return cls(model)
        rotated = _whole(model, f"{start}rope.dimension_count") or rows // q
        return cls(model, q, k, rows // q, rotated if rotated % 2 == 0 and rotated <= rows // q else None)

    def in_layer_of(self, tensor: str) -> "Heads":
        """Those of the layer that a tensor belongs to."""
        if not isinstance(self.model, Artifact):
            return self
        c = settings_of(self.model.config, tensor)
        size = c.head_dim
        return replace(self, k=c.num_key_value_heads, size=size, rotated=c.rotary_dim or size)

    def layers(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """The weights of q and of k, layer by layer."""
        for name in names:
            if name.endswith("q_proj.weight") and (k := name.replace("q_proj", "k_proj")) in names:
                yield name, k

    def rows(self, q: str, k: str) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """The rows of both in the order of the file; None where they cannot be had, or are not made of these heads."""
        if self.rotated is None or self.size is None:
            return None
        infos = [self.model.tensors[name] for name in (q, k)]
        if any(info.unread is not None or len(info.shape) != 2 for info in infos):
            return None
        fits = [info.shape[0] == count * self.size for info, count in zip(infos, (self.q, self.k), strict=True)]
        same = infos[0].shape[1] == infos[1].shape[1]
        if not all(fits) or not same or max(info.shape[0] * info.shape[1] for info in infos) > _MOST:
            return None
        return self._floats(q), self._floats(k)

    def _floats(self, name: str) -> NDArray[np.float32]:
        info = self.model.tensors[name]
        if info.packing is not None:
            return self.model.stored_rows(name).view(np.float32)
        assert isinstance(info.type, TensorType)
        return dequantize_rows(info.type, np.ascontiguousarray(self.model.stored_rows(name)), info.shape[-1])


def _whole(model: StoredModel, *keys: str) -> int:
    for key in keys:
        value = model.metadata.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0
