#!/usr/bin/env bash
# With a quantized KV cache llama.cpp's attention node holds values that no other engine has.
#
# Version: llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), CPU, gguf 0.19.0, numpy 2.4.6.
# Behaviour: with cache types q8_0 and flash attention on, and heads of a multiple of 64 channels, the node
#   FLASH_ATTN_EXT (and `kqv_out`, its view) is the context times a 64 x 64 Walsh-Hadamard matrix; a product with
#   `attn_inp_v_rot` after it turns the values back. Heads of 32 channels, a float cache, or
#   LLAMA_ATTN_ROT_DISABLE=1 give the plain context. No setting, metadata key or log line at the default level tells.
# Why it matters: who dumps `kqv_out` with an eval callback and compares it with another engine, or with the same
#   engine and a float cache, finds attention off by about 1.3 of its norm although the output is right.
# The script fails if any of this changes. Building the package takes minutes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 gguf==0.19.0 llama-cpp-python==0.3.36
cat > "$work/probe.py" <<'PY'
import ctypes, sys
from pathlib import Path
import gguf, llama_cpp, numpy as np

llama = llama_cpp.llama_cpp
base = ctypes.CDLL(str(next((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base*"))))
for name, result, arguments in (
    ("ggml_op_desc", ctypes.c_char_p, [ctypes.c_void_p]), ("ggml_nbytes", ctypes.c_size_t, [ctypes.c_void_p]),
    ("ggml_backend_tensor_get", None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]),
):
    getattr(base, name).restype, getattr(base, name).argtypes = result, arguments


def model(path, head, width=128, words=64):
    rng = np.random.default_rng(0)
    w = gguf.GGUFWriter(path, "qwen2")
    w.add_context_length(64); w.add_embedding_length(width); w.add_block_count(1); w.add_feed_forward_length(64)
    w.add_head_count(width // head); w.add_head_count_kv(width // head); w.add_layer_norm_rms_eps(1e-6)
    w.add_vocab_size(words); w.add_tokenizer_model("none")
    matrix = lambda *shape: rng.normal(0, 0.2, shape).astype(np.float32)
    w.add_tensor("token_embd.weight", matrix(words, width)); w.add_tensor("output.weight", matrix(words, width))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        w.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        w.add_tensor(f"blk.0.{name}.weight", matrix(width, width))
    for name in "qkv":
        w.add_tensor(f"blk.0.attn_{name}.bias", np.zeros(width, np.float32))
    w.add_tensor("blk.0.ffn_gate.weight", matrix(64, width)); w.add_tensor("blk.0.ffn_up.weight", matrix(64, width))
    w.add_tensor("blk.0.ffn_down.weight", matrix(width, 64))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def attention(path, cache, tokens=(5, 10, 7, 31)):
    """Values of the node FLASH_ATTN_EXT, (tokens, channels)."""
    found = []
    def see(node, ask, _):
        if base.ggml_op_desc(node) != b"FLASH_ATTN_EXT":
            return not ask
        if not ask:
            values = np.empty(base.ggml_nbytes(node) // 4, np.float32)
            base.ggml_backend_tensor_get(node, values.ctypes.data, 0, values.nbytes)
            found.append(values.reshape(len(tokens), -1))
        return True
    callback = llama.ggml_backend_sched_eval_callback(see)
    loaded = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    p = llama.llama_context_default_params()
    p.n_ctx, p.flash_attn_type, p.type_k, p.type_v, p.cb_eval = 64, 1, cache, cache, callback
    context = llama.llama_init_from_model(loaded, p)
    found.clear()
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    assert llama.llama_decode(context, batch) == 0
    return found[-1]


hadamard = np.ones((1, 1))
while len(hadamard) < 64:
    hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
off = lambda x, y: float(np.linalg.norm(x - y) / np.linalg.norm(y))
F16, Q8_0 = 1, 8
quiet = llama.llama_log_callback(lambda *_: None)
llama.llama_log_set(quiet, ctypes.c_void_p(0))
figures = {}
for head in (32, 64):
    path = str(Path(sys.argv[1]) / f"head{head}.gguf")
    model(path, head)
    plain, kept = attention(path, F16), attention(path, Q8_0)
    back = (kept.reshape(-1, 64) @ hadamard / 8).reshape(kept.shape)
    figures[head] = off(kept, plain), off(back, plain)
    print(f"heads of {head}: q8_0 cache against f16, as dumped {figures[head][0]:.3f}, turned back {figures[head][1]:.3f}")
assert figures[32][0] < 0.05 < 0.5 < figures[32][1], "heads of 32 channels are turned as well"
assert figures[64][1] < 0.05 < 0.5 < figures[64][0], "heads of 64 channels are no longer turned"
PY
"$work/venv/bin/python" "$work/probe.py" "$work"
echo "as described"
# Output seen on 2026-11-27:
#   heads of 32: q8_0 cache against f16, as dumped 0.015, turned back 1.340
#   heads of 64: q8_0 cache against f16, as dumped 1.316, turned back 0.012
