"""The files of `llama-debug --save-logits`: NAME.bin, the last token's logits, and NAME-tokens.bin, the token ids.

NAME.bin is float32 and nothing else, little-endian. Neither file says what it is, so that only the pair is recognised.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.stages import Site
from store.errors import StoreError
from store.files.model_file import ModelFile
from store.traces.kind import LOGITS, LOGITS_TOKENS
from store.traces.trace import LLAMA_CPP, StoredStage, Trace

_MAX_TOKENS = 1 << 22
_UNSAID = (
    "No checksum of the model is there: that it was this model is your word.",
    "The settings of the run (weight repacking, flash attention, KV cache type, batch size) are not there.",
    "Whether the file holds logits or, after --embedding, an embedding is not there; only its length tells.",
)


def open_logits(file: ModelFile) -> Trace:
    """Open NAME.bin with the NAME-tokens.bin beside it; StoreError if they are not what they should be."""
    if file.path.name.endswith(LOGITS_TOKENS):
        raise StoreError(f"{file.shown} holds token ids; give the file of the logits beside it.")
    ids = ModelFile.at(_tokens_path(file).resolve())
    if ids.size == 0 or ids.size % 4 or ids.size > 4 * _MAX_TOKENS:
        raise StoreError(f"{ids.shown} has {ids.size} bytes, which are not token ids of 4 bytes each; save it again.")
    tokens = np.frombuffer(ids.read(0, ids.size, "the token ids"), "<i4")
    if tokens.min() < 0:
        raise StoreError(f"{ids.shown} holds token id {tokens.min()}, which cannot be; save it again.")
    if file.size == 0 or file.size % 4:
        raise StoreError(f"{file.shown} has {file.size} bytes, which are not float32 logits; save it again.")

    def load() -> NDArray[np.float32]:
        return np.frombuffer(file.map(0, file.size, "the logits"), "<f4")

    count = file.size // 4
    stage = StoredStage(count, "float32", load, count, (len(tokens) - 1,), last_token=True)
    return Trace(
        path=file.path,
        engine=LLAMA_CPP,
        tokens=tuple(tokens.tolist()),
        settings={},
        stages={Site(None, "lm_head"): stage},
        files=(file,),
        not_carried=_UNSAID,
        notes=("Only the logits of the last token are there, and no other stage.",),
    )


def _tokens_path(file: ModelFile) -> Path:
    return file.path.with_name(file.path.name.removesuffix(LOGITS) + LOGITS_TOKENS)
