#!/usr/bin/env bash
# llama.cpp computes a short prompt otherwise in a large context: LongRoPE's factors are chosen by n_ctx, not by length.
#
# Version: llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), CPU, gguf 0.19.0, numpy 2.4.6.
# Behaviour: of a phi3 with rope_factors_short and rope_factors_long the long ones are taken for every token as soon as
#   the context was created with n_ctx above the original context of the model, also where the prompt has four tokens.
#   transformers chooses by the length of the text. No log line at the default level tells which factors run.
# Why it matters: the same file, prompt and greedy sampling answer otherwise when nothing but `-c` or the server's
#   context size is changed, and a comparison with transformers fails on short prompts with a default context (which is
#   that of training, 128k, and so the long factors).
# The script fails if this changes. Building the package takes minutes.
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
WIDTH, INNER, WORDS, HEAD, ORIGINAL = 64, 32, 32, 32, 256


def model(path):
    """A phi3 of one layer, random, that was stretched from 256 to 1024 tokens."""
    rng = np.random.default_rng(0)
    w = gguf.GGUFWriter(path, "phi3")
    w.add_context_length(4 * ORIGINAL); w.add_embedding_length(WIDTH); w.add_block_count(1)
    w.add_feed_forward_length(INNER); w.add_head_count(WIDTH // HEAD); w.add_head_count_kv(WIDTH // HEAD)
    w.add_layer_norm_rms_eps(1e-6); w.add_vocab_size(WORDS); w.add_tokenizer_model("none")
    w.add_rope_dimension_count(HEAD); w.add_rope_scaling_orig_ctx_len(ORIGINAL)
    matrix = lambda *shape: rng.normal(0, 0.2, shape).astype(np.float32)
    w.add_tensor("token_embd.weight", matrix(WORDS, WIDTH)); w.add_tensor("output.weight", matrix(WORDS, WIDTH))
    w.add_tensor("rope_factors_short.weight", np.ones(HEAD // 2, np.float32))
    w.add_tensor("rope_factors_long.weight", np.full(HEAD // 2, 4, np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        w.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    w.add_tensor("blk.0.attn_qkv.weight", matrix(3 * WIDTH, WIDTH))
    w.add_tensor("blk.0.attn_output.weight", matrix(WIDTH, WIDTH))
    w.add_tensor("blk.0.ffn_up.weight", matrix(2 * INNER, WIDTH)); w.add_tensor("blk.0.ffn_down.weight", matrix(WIDTH, INNER))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def logits(path, n_ctx, tokens=(5, 10, 7, 31)):
    """Of all tokens, (tokens, words)."""
    loaded = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    p = llama.llama_context_default_params()
    p.n_ctx, p.flash_attn_type = n_ctx, 0
    context = llama.llama_init_from_model(loaded, p)
    assert llama.llama_n_ctx(context) == (n_ctx or 4 * ORIGINAL)
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    assert llama.llama_decode(context, batch) == 0
    return np.ctypeslib.as_array(llama.llama_get_logits(context), (len(tokens), WORDS)).copy()


off = lambda x, y: float(np.linalg.norm(x - y) / np.linalg.norm(y))
quiet = llama.llama_log_callback(lambda *_: None)
llama.llama_log_set(quiet, ctypes.c_void_p(0))
path = str(Path(sys.argv[1]) / "model.gguf")
model(path)
short = logits(path, ORIGINAL)
for n_ctx, name in ((ORIGINAL, "256"), (2 * ORIGINAL, "512"), (4 * ORIGINAL, "1024"), (0, "as trained")):
    distance = off(logits(path, n_ctx), short)
    print(f"4 tokens, n_ctx {name}: logits off by {distance:.4f} of those with n_ctx 256")
    assert distance == 0 if n_ctx == ORIGINAL else distance > 0.01, "the factors are chosen by something else now"
PY
"$work/venv/bin/python" "$work/probe.py" "$work"
echo "as described"
