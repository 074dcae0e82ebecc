"""llama.cpp, with every node of its graph copied to memory by callback or plain.

Job: model, tokens, threads, plain, and settings that replace llama.cpp's own (repack, flash, kv).
"""

import ctypes
import os
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.peers.serving import clock, job, serve

VIEWS = (b"NONE", b"RESHAPE", b"VIEW", b"PERMUTE", b"TRANSPOSE")
CACHE_WRITES = (b"SET_ROWS", b"CPY")  # their result is the whole KV buffer, which no one wants to see
FLASH = {"auto": -1, "off": 0}
KV_TYPES = {"f32": 0, "f16": 1}

llama: Any = llama_cpp.llama_cpp
ggml = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
ggml.ggml_nbytes.restype, ggml.ggml_nbytes.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
ggml.ggml_op_desc.restype, ggml.ggml_op_desc.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
ggml.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
ggml.ggml_backend_tensor_get.restype = None


class Copies:
    """The copied nodes of one run."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []

    def __call__(self, node: Any, ask: bool, _data: Any) -> bool:  # noqa: ANN401
        if ask:
            return ggml.ggml_op_desc(node) not in (*VIEWS, *CACHE_WRITES)
        copy = np.empty(ggml.ggml_nbytes(node), np.uint8)
        ggml.ggml_backend_tensor_get(node, copy.ctypes.data, 0, copy.nbytes)
        self.arrays.append(copy)
        return True


class Engine:
    """A loaded model with its tokens; callbacks are kept because C does not."""

    def __init__(self, wanted: Any) -> None:  # noqa: ANN401
        self._clock = clock(wanted)
        tokens, self._copies = wanted["tokens"], Copies()
        self._quiet = llama.llama_log_callback(lambda _level, _text, _data: None)
        llama.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama.llama_backend_init()
        model_settings = llama.llama_model_default_params()
        model_settings.n_gpu_layers = 0
        model_settings.use_extra_bufts = wanted.get("repack", True)
        model = llama.llama_model_load_from_file(os.fsencode(wanted["model"]), model_settings)
        settings = llama.llama_context_default_params()
        settings.n_ctx = max(256, len(tokens))
        settings.n_threads = settings.n_threads_batch = wanted["threads"]
        settings.flash_attn_type = FLASH[wanted.get("flash", "auto")]
        settings.type_k = settings.type_v = KV_TYPES[wanted.get("kv", "f16")]
        self._callback = llama.ggml_backend_sched_eval_callback(self._copies)
        if not wanted.get("plain", False):
            settings.cb_eval = self._callback
        self._context = llama.llama_init_from_model(model, settings)
        self._batch = batch = llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0

    def run(self) -> float:
        """One pass over all tokens; returns its seconds."""
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        self._copies.arrays.clear()
        start = self._clock()
        if llama.llama_decode(self._context, self._batch) != 0:
            raise RuntimeError("llama_decode failed")
        llama.llama_synchronize(self._context)
        return self._clock() - start


class SignalStack(ctypes.Structure):
    """`stack_t` of the C library."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


SMALL_STACK = ctypes.create_string_buffer(4096)


def keep_amx_out() -> None:
    """Let the kernel refuse tile registers to this process, as it does while a signal stack is too small for them."""
    stack = SignalStack(ctypes.addressof(SMALL_STACK), 0, len(SMALL_STACK))
    ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None)


def crashes(wanted: Any) -> bool:  # noqa: ANN401
    """Whether a run ends the process, as llama.cpp's AMX code does when GCC 12 has compiled it."""
    child = os.fork()
    if child == 0:
        Engine(wanted).run()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main() -> None:
    """Load the model once, run the tokens as often as asked."""
    wanted = job()
    if crashes(wanted):
        keep_amx_out()
    serve(Engine(wanted).run)


if __name__ == "__main__":
    main()
