#!/usr/bin/env bash
# In llama.cpp a Qwen2-MoE whose shared expert has a gate of exactly 0 gives NaN for every logit.
#
# Version: llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), CPU, gguf 0.19.0, numpy 2.4.6.
# Behaviour: the sigmoid of the gate beside the experts is computed as SiLU(g) / g. Where g is 0, as with a gate whose
#   weight is all zeros, that is 0 / 0: the token's hidden state is NaN from there on, and so are all of its logits. No
#   error is returned and nothing is logged. With any other gate, 1e-30 too, the result is that of sigmoid(0) = 0.5.
# Why it matters: zeros are how such a gate is initialised when a dense model is turned into one with experts, or when
#   it is pruned; transformers and every other engine compute 0.5 there, so the converted file is blamed.
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
WIDTH, INNER, WORDS, EXPERTS = 64, 32, 32, 4


def model(path, gate):
    """A Qwen2-MoE of one layer, all weights random but those of the gate, which are all the same."""
    rng = np.random.default_rng(0)
    w = gguf.GGUFWriter(path, "qwen2moe")
    w.add_context_length(64); w.add_embedding_length(WIDTH); w.add_block_count(1); w.add_feed_forward_length(INNER)
    w.add_head_count(2); w.add_head_count_kv(2); w.add_layer_norm_rms_eps(1e-6); w.add_vocab_size(WORDS)
    w.add_expert_count(EXPERTS); w.add_expert_used_count(2); w.add_expert_feed_forward_length(INNER)
    w.add_expert_shared_feed_forward_length(INNER); w.add_tokenizer_model("none")
    matrix = lambda *shape: rng.normal(0, 0.2, shape).astype(np.float32)
    w.add_tensor("token_embd.weight", matrix(WORDS, WIDTH)); w.add_tensor("output.weight", matrix(WORDS, WIDTH))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        w.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        w.add_tensor(f"blk.0.{name}.weight", matrix(WIDTH, WIDTH))
    for name in "qkv":
        w.add_tensor(f"blk.0.attn_{name}.bias", np.zeros(WIDTH, np.float32))
    w.add_tensor("blk.0.ffn_gate_inp.weight", matrix(EXPERTS, WIDTH))
    w.add_tensor("blk.0.ffn_gate_inp_shexp.weight", np.full(WIDTH, gate, np.float32))
    for kind, lead in (("exps", (EXPERTS,)), ("shexp", ())):
        w.add_tensor(f"blk.0.ffn_gate_{kind}.weight", matrix(*lead, INNER, WIDTH))
        w.add_tensor(f"blk.0.ffn_up_{kind}.weight", matrix(*lead, INNER, WIDTH))
        w.add_tensor(f"blk.0.ffn_down_{kind}.weight", matrix(*lead, WIDTH, INNER))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def logits(path, tokens=(5, 10, 7, 31)):
    """Of all tokens, (tokens, words), and what `llama_decode` returned."""
    loaded = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    p = llama.llama_context_default_params()
    p.n_ctx, p.flash_attn_type = 64, 0
    context = llama.llama_init_from_model(loaded, p)
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    status = llama.llama_decode(context, batch)
    return np.ctypeslib.as_array(llama.llama_get_logits(context), (len(tokens), WORDS)).copy(), status


quiet = llama.llama_log_callback(lambda *_: None)
llama.llama_log_set(quiet, ctypes.c_void_p(0))
found = {}
for gate in (0.0, 1e-30):
    path = str(Path(sys.argv[1]) / "model.gguf")
    model(path, gate)
    found[gate], status = logits(path)
    print(f"gate of {gate:g}: llama_decode returned {status}, {np.isnan(found[gate]).sum()} of {found[gate].size} logits are NaN")
    assert status == 0
assert np.isnan(found[0.0]).all(), "a gate of 0 is no longer NaN"
assert np.isfinite(found[1e-30]).all()
PY
"$work/venv/bin/python" "$work/probe.py" "$work"
echo "as described"
