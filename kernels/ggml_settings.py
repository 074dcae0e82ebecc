"""The settings of llama.cpp's CPU backend that change the bits of a forward, as a user names them."""

import re
from dataclasses import dataclass
from typing import Self

from kernels.errors import WorkbenchError
from kernels.matmul.routines import Routines

GGML = "ggml"
_WORDS = ("repack", "tiled", "flash", "avx512", "avx512_bf16")
CACHES = ("f32", "f16")
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True)
class GgmlSettings:
    """What is not as in the clean forward, which can be repeated on any number of tokens.

    repack : weights are rearranged when they are loaded. tiled : eight tokens and more are multiplied in tiles. flash :
    flash attention. avx512, avx512_bf16 : the library was built for it, the second only with the first. type_k,
    type_v : of the KV cache, f32 or f16. batch : the most tokens that are computed at once; 0 for all.
    """

    repack: bool = False
    tiled: bool = False
    flash: bool = False
    avx512: bool = False
    avx512_bf16: bool = False
    type_k: str = "f32"
    type_v: str = "f32"
    batch: int = 0

    @property
    def routines(self) -> Routines:
        """What decides how products are computed."""
        return Routines(self.repack, self.tiled, self.avx512, self.batch, self.avx512_bf16)

    @property
    def path(self) -> str:
        """The name of the path that computes with them."""
        return ":".join(filter(None, (GGML, ",".join(self.words))))

    @property
    def words(self) -> tuple[str, ...]:
        """As `of` reads them; nothing for the clean forward."""
        caches = (f"{part}={kind}" for part, kind in (("k", self.type_k), ("v", self.type_v)) if kind != "f32")
        batch = (f"batch={self.batch}",) if self.batch else ()
        return (*(word for word in _WORDS if getattr(self, word)), *caches, *batch)

    @classmethod
    def of(cls, words: str) -> Self:
        """Read "repack,tiled,flash,avx512,avx512_bf16,k=f16,v=f16,batch=512", of which each may be missing.

        WorkbenchError, one sentence, for anything else.
        """
        found: dict[str, bool | str | int] = {}
        for word in words.split(","):
            name, _, value = word.partition("=")
            if word in _WORDS:
                found[word] = True
            elif name in ("k", "v") and value in CACHES:
                found[f"type_{name}"] = value
            elif name == "batch" and _NUMBER.fullmatch(value):
                found[name] = int(value)
            else:
                known = f"{', '.join(_WORDS)}, k=f16, v=f16, batch=512"
                raise WorkbenchError(f"{word[:40]!r} is no setting of path ggml; give some of {known}")
        if "avx512_bf16" in found and "avx512" not in found:
            raise WorkbenchError("'avx512_bf16' is a setting of builds with AVX-512; give avx512 as well")
        return cls(**found)  # type: ignore[arg-type]
