"""Run one forward in llama.cpp and send every node of its graph to the process that started this file.

Runs alone, in the interpreter that has llama-cpp-python: nothing of this project can be imported here.
Input: a JSON object on stdin. Output on stdout: frames of a header (u32 length, JSON) and the bytes it announces.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

OBJECT_BYTES = 32  # of struct ggml_object, which ggml_tensor_overhead() counts in
VIEWS = ("NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE")
CACHE_WRITES = ("SET_ROWS", "CPY")  # the whole KV buffer, which no stage needs: listed, not sent
PRODUCTS = ("MUL_MAT", "MUL_MAT_ID")
PLAIN_BUFFERS = ("CPU", "CPU_Mapped")
NUMPY_TYPES = {"f32": "<f4", "f16": "<f2", "bf16": "<u2", "i32": "<i4", "f64": "<f8"}
FLASH = {"auto": -1, "off": 0, "on": 1}
# enum ggml_type of what llama.cpp keeps K and V in; a quantized V needs flash attention.
CACHE_TYPES = {
    "f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2, "iq4_nl": 20,
}  # fmt: skip
MIN_CONTEXT = 64
LOG_ERROR = 4


class Tensor(ctypes.Structure):
    """Struct ggml_tensor (ggml.h); `check_layout` makes sure that this build has it so."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


class Refusal(Exception):  # noqa: N818 - told to the parent as a sentence
    """Why nothing can be recorded, in words for the user."""


class Parent:
    """The process that started this one; whatever else prints goes to stderr from here on."""

    def __init__(self) -> None:
        self.stream = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def send(self, payload: bytes = b"", **header: Any) -> None:
        text = json.dumps({**header, "bytes": len(payload)}).encode()
        self.stream.write(len(text).to_bytes(4, "little") + text + payload)
        self.stream.flush()


class Ggml:
    """The functions of libggml-base that llama-cpp-python does not wrap."""

    def __init__(self, package: Path) -> None:
        found = [path for path in (package / "lib").glob("*ggml-base*") if path.suffix in (".so", ".dylib", ".dll")]
        if not found:
            raise Refusal(f"there is no ggml-base library in {package / 'lib'}; install llama-cpp-python again")
        self.library = ctypes.CDLL(str(found[0]))
        self.cpu = [
            str(path) for path in (package / "lib").glob("*ggml-cpu*") if path.suffix in (".so", ".dylib", ".dll")
        ]
        pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
        self.nbytes = self.function("ggml_nbytes", size, pointer)
        self.read = self.function("ggml_backend_tensor_get", None, pointer, pointer, size, size)
        self.op = self.function("ggml_op_desc", text, pointer)
        self.name = self.function("ggml_get_name", text, pointer)
        self.type_name = self.function("ggml_type_name", text, ctypes.c_int)
        self.overhead = self.function("ggml_tensor_overhead", size)
        self.buffer_name = self.function("ggml_backend_buffer_name", text, pointer)

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        found = getattr(self.library, name)
        found.restype, found.argtypes = result, arguments
        return found

    def tiles(self) -> bool:
        """Whether products of eight tokens and more are tiled: where the library can, unless a variable forbids it."""
        able = any(hasattr(ctypes.CDLL(path), "ggml_compute_forward_mul_mat_tiled") for path in self.cpu)
        said = re.match(r"\s*[+-]?\d+", os.environ.get("GGML_CPU_TILED_MM", "1"))
        return able and said is not None and int(said[0]) != 0

    def check_layout(self) -> None:
        if self.overhead() != ctypes.sizeof(Tensor) + OBJECT_BYTES:
            raise Refusal("this llama-cpp-python lays out ggml tensors in another way; install version 0.3.36")


class Recorder:
    """Receives every node of the graph while it is computed, and sends it on."""

    def __init__(self, ggml: Ggml, parent: Parent, layer_runs: int) -> None:
        self.ggml = ggml
        self.parent = parent
        self.layer_runs = layer_runs  # layers times batches
        self.layers_done = 0
        self.recording = False
        self.index: list[dict[str, Any]] = []
        self.buffers: dict[str, str] = {}  # of the weights of products, by name
        self.failure: BaseException | None = None

    def __call__(self, address: Any, ask: bool, _data: Any) -> bool:
        if self.failure is not None or not self.recording:
            return not ask  # False to a question: not wanted; False to data would end the computation
        try:
            pointer = address if isinstance(address, int) else ctypes.cast(address, ctypes.c_void_p).value
            return self.wanted(pointer) if ask else self.keep(pointer)
        except BaseException as error:  # nothing may be raised through the C code above
            self.failure = error
            return not ask

    def wanted(self, pointer: Any) -> bool:
        op = self.ggml.op(pointer).decode()
        if op in CACHE_WRITES:
            self.listed(pointer, op)
        return op not in (*VIEWS, *CACHE_WRITES)

    def listed(self, pointer: Any, op: str) -> dict[str, Any]:
        """Add a node to the index and return its entry: name, operation, type, sizes, strides, sources."""
        tensor = Tensor.from_address(pointer)
        record = {
            "seq": len(self.index),
            "name": self.ggml.name(pointer).decode(errors="replace"),
            "op": op,
            "type": self.ggml.type_name(tensor.type).decode(),
            "ne": list(tensor.ne),
            "nb": list(tensor.nb),
            "src": [self.ggml.name(source).decode(errors="replace") for source in tensor.src if source],
        }
        self.index.append(record)
        if op in PRODUCTS and tensor.src[0] and (weight := Tensor.from_address(tensor.src[0])).buffer:
            self.buffers[record["src"][0]] = self.ggml.buffer_name(weight.buffer).decode(errors="replace")
        return record

    def rearranged(self) -> dict[str, list[str]]:
        """Names of the weights that do not lie in memory as in the file, by the buffer that they are in."""
        found: dict[str, list[str]] = {}
        for name, buffer in self.buffers.items():
            if buffer not in PLAIN_BUFFERS:
                found.setdefault(buffer, []).append(name)
        return found

    def keep(self, pointer: Any) -> bool:
        record = self.listed(pointer, self.ggml.op(pointer).decode())
        if record["type"] in NUMPY_TYPES:
            key = f"{record['seq']:05d}|{record['name']}|{record['op']}"
            send_array(self.parent, key, self.values(pointer, record))
        if record["name"].startswith("l_out-"):
            self.layers_done += 1
            self.parent.send(kind="progress", done=self.layers_done, total=self.layer_runs)
        return True

    def values(self, pointer: Any, record: dict[str, Any]) -> Any:
        """Copy the values, slowest axis first, without the leading axes of length 1 beyond two."""
        import numpy as np

        raw = np.empty(self.ggml.nbytes(pointer), np.uint8)
        self.ggml.read(pointer, raw.ctypes.data, 0, raw.nbytes)
        flat = raw.view(NUMPY_TYPES[record["type"]])
        shape, strides = record["ne"][::-1], record["nb"][::-1]
        values = np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, shape, strides))
        if record["type"] == "bf16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        while values.ndim > 2 and values.shape[0] == 1:
            values = values[0]
        return values


def send_array(parent: Parent, name: str, values: Any) -> None:
    """Send an array under its key."""
    parent.send(values.tobytes(), kind="array", name=name, dtype=values.dtype.str, shape=values.shape)


def assign(parameters: Any, **values: Any) -> None:
    """Set parameters that this build must have: ctypes would take any other name in silence."""
    known = {field[0] for field in parameters._fields_}
    for name, value in values.items():
        if name not in known:
            raise Refusal(f"this llama-cpp-python has no setting {name}; install version 0.3.36")
        setattr(parameters, name, value)


def load(llama: Any, job: dict[str, Any]) -> Any:
    """Load the model for the CPU."""
    parameters = llama.llama_model_default_params()
    assign(parameters, n_gpu_layers=0, use_extra_bufts=job["repack"])
    model = llama.llama_model_load_from_file(os.fsencode(job["model"]), parameters)
    if not model:
        raise Refusal("llama.cpp could not load the model")
    return model


def cache_types(job: dict[str, Any]) -> tuple[str, str]:
    """Return the types of K and of V: a job names both ("q8_0,f16"), or one for both."""
    keys, _, values = job["kv"].partition(",")
    return keys, values or keys


def context(llama: Any, model: Any, job: dict[str, Any], callback: Any) -> Any:
    """Make a context with the settings of the job, and the callback that sees every node."""
    tokens = len(job["tokens"])
    parameters = llama.llama_context_default_params()
    keys, values = (CACHE_TYPES[name] for name in cache_types(job))
    assign(
        parameters,
        n_ctx=max(MIN_CONTEXT, tokens),
        n_batch=max(tokens, job["batch"]),
        n_ubatch=job["batch"],
        n_threads=job["threads"],
        n_threads_batch=job["threads"],
        flash_attn_type=FLASH[job["flash"]],
        offload_kqv=False,
        type_k=keys,
        type_v=values,
        cb_eval=callback,
    )
    made = llama.llama_init_from_model(model, parameters)
    if not made:
        raise Refusal("llama.cpp could not create a context with these settings")
    return made


def calls_of(job: dict[str, Any]) -> list[int]:
    """How many tokens every call of the engine is given; all in one unless the job says so."""
    return job.get("calls") or [len(job["tokens"])]


def decode(llama: Any, made: Any, tokens: list[int], start: int) -> Any:
    """Run the tokens at positions from `start` on; returns their logits.

    The logits of all of them are asked for: so no row is dropped on the way.
    """
    import numpy as np

    batch = llama.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.logits[i] = token, start + i, 1
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
    status = llama.llama_decode(made, batch)
    llama.llama_batch_free(batch)
    if status != 0:
        raise Refusal(f"llama.cpp could not run the tokens (llama_decode gave {status})")
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(llama.llama_get_model(made)))
    rows = (llama.llama_get_logits_ith(made, i) for i in range(len(tokens)))
    return np.stack([np.ctypeslib.as_array(row, (vocabulary,)) for row in rows])


def decode_all(llama: Any, made: Any, job: dict[str, Any]) -> Any:
    """Run the tokens as one sequence, in as many calls as the job says; returns the logits of all of them."""
    import numpy as np

    logits, start = [], 0
    for count in calls_of(job):
        logits.append(decode(llama, made, job["tokens"][start : start + count], start))
        start += count
    return np.concatenate(logits)


def run(job: dict[str, Any], parent: Parent) -> None:
    """Run the job and send what it gives; tell the parent if the engine is not installed."""
    try:
        import llama_cpp
    except ModuleNotFoundError as error:
        parent.send(kind="missing", text=str(error.name))
        return
    llama = llama_cpp.llama_cpp
    ggml = Ggml(Path(llama_cpp.__file__).parent)
    ggml.check_layout()
    complaints: list[str] = []

    def complain(level: int, text: bytes, _data: Any) -> None:
        if level == LOG_ERROR:
            complaints.append(text.decode(errors="replace").strip())

    log = llama.llama_log_callback(complain)
    llama.llama_log_set(log, ctypes.c_void_p(0))
    llama.llama_backend_init()
    try:
        model = load(llama, job)
        batches = sum(-(-count // job["batch"]) for count in calls_of(job))
        recorder = Recorder(ggml, parent, llama.llama_model_n_layer(model) * batches)
        callback = llama.ggml_backend_sched_eval_callback(recorder)
        made = context(llama, model, job, callback)
        recorder.recording = True  # what ran before was only a rehearsal
        logits = decode_all(llama, made, job)
    except Refusal as refusal:
        raise Refusal(": ".join([str(refusal), *complaints[-1:]])) from None
    if recorder.failure is not None:
        raise recorder.failure
    send_array(parent, "logits", logits)
    parent.send(json.dumps(recorder.index).encode(), kind="text", name="__index__")
    parent.send(json.dumps(settings(llama_cpp, llama, made, job, recorder)).encode(), kind="text", name="__meta__")


def settings(package: Any, llama: Any, made: Any, job: dict[str, Any], recorder: Recorder) -> dict[str, Any]:
    """Return everything that decides the numbers of this run."""
    return {
        "engine": "llama.cpp",
        "engine_version": f"llama-cpp-python {package.__version__}",
        "system_info": llama.llama_print_system_info().decode(errors="replace").strip(),
        "threads": job["threads"],
        "repack": int(job["repack"]),
        "rearranged": recorder.rearranged(),
        "tiled": int(recorder.ggml.tiles()),
        "flash": FLASH[job["flash"]],
        "kv": job["kv"],
        "n_ctx": llama.llama_n_ctx(made),
        "n_batch": llama.llama_n_batch(made),
        "n_ubatch": llama.llama_n_ubatch(made),
        "calls": calls_of(job),
        "logits": "all",
        "environment": {k: v for k, v in os.environ.items() if k.startswith(("GGML_", "LLAMA_", "OMP_"))},
    }


def main() -> None:
    """Read the job, run it, and send what comes of it."""
    job = json.load(sys.stdin)
    parent = Parent()
    try:
        run(job, parent)
    except Exception as error:
        what = str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
        parent.send(kind="error", text=what)
        sys.exit(1)
    parent.send(kind="end")


if __name__ == "__main__":
    main()
