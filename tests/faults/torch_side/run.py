"""Run Hugging Face models with planted runtime mistakes and dump their stages; alone, in the interpreter with torch.

usage: run.py JOBS.json. A job: model (folder with weights.npz and config.json of plain values), tokens, dtype,
edit (name in EDITS or ""), layers (where it is planted; empty: everywhere), value, out (.npz). The dump has the keys
"stage|<layer>|<stage>", layer -1 for whole-model stages, and "__meta__".
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import attention as at
import layers
import numpy as np
import torch
import transformers
import weights
from model import Run, build, watch

NORMS = (
    *(f"{name}_layernorm" for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")),
    *("ffn_norm", "self_attn.q_norm", "self_attn.k_norm", "norm"),
)
EDITS = {
    "attention_scale": at.attention(lambda r, m, q, k, v, s: at.attend(r, m, q, k, v, s * r.value)),
    "mask": at.attention(at.masked),
    "grouping": at.attention(at.grouped),
    "kv": at.attention(at.kept),
    "qkv": at.attention(at.all_kept),
    "untransposed": at.attention(at.untransposed),
    "heads_moved": at.attention(at.heads_moved),
    "head_silent": at.attention(at.head_silent),
    "soft_capped": at.attention(at.soft_capped),
    "theta": at.rotary(at.other_theta),
    "positions": at.rotary(at.other_positions),
    "only_query": at.rotary(at.only_query),
    "only_key_shifted": at.rotary(at.only_key_shifted),
    "adjacent": at.rotary(at.adjacent),
    "partial": at.rotary(at.partial_rotary),
    "key_rounded": at.rotary(at.key_rounded),
    "tables": at.rotary(at.rounded_tables),
    "two settings": at.rotary(at.two_settings),
    "stretched": at.rotary(at.stretched),
    "rotation of other layers": at.rotary(at.of_other_layers),
    **{f"one token {p}": layers.one_token(p) for p in ("lm_head", "mlp.down_proj", "self_attn.o_proj")},
    "activation": layers.activation,
    "gate_up_in_forward": layers.gate_up_in_forward,
    "no_up": layers.no_up,
    "sum_with_up": layers.sum_with_up,
    "gate_up_modules": layers.gate_up_modules,
    "q_k_modules": layers.q_k_modules,
    "residual": layers.residual,
    "eps": layers.eps,
    **{f"eps {p}": layers.eps_of(p) for p in NORMS},
    **{f"norm {p}": layers.norm_forward(p) for p in NORMS},
    **{f"heads together {x}": layers.heads_together(f"self_attn.{x}_norm") for x in "qk"},
    "norms exchanged q k": layers.norms_exchanged("self_attn.q_norm", "self_attn.k_norm"),
    "norms exchanged behind": layers.norms_exchanged("post_attention_layernorm", "post_feedforward_layernorm"),
    "norms exchanged around": layers.norms_exchanged("post_attention_layernorm", "pre_feedforward_layernorm"),
    "layer types": layers.layer_types,
    "no_biases": layers.no_biases,
    **{f"bias zero {x}": layers.bias(x, lambda r, b: b * 0) for x in ("q", "k", "v", "qkv")},
    **{f"bias twice {x}": layers.bias(x, lambda r, b: b * 2) for x in "qkv"},
    **{f"bias minus {x}": layers.bias(x, lambda r, b: -b) for x in "qkv"},
    **{f"bias random {x}": layers.bias(x, lambda r, b: torch.randn(b.shape, generator=r.generator)) for x in "qkv"},
    **{
        f"inputs {name}": layers.rounded_inputs(path)
        for name, path in (
            ("qkv", "self_attn.q_proj,self_attn.k_proj,self_attn.v_proj"),
            ("o", "self_attn.o_proj"),
            ("gate_up", "mlp.gate_proj,mlp.up_proj"),
            ("down", "mlp.down_proj"),
            ("head", "lm_head"),
        )
    },
    **{
        f"weight {kind} {path}": weights.weight(path, kind)
        for path in (
            *(f"self_attn.{x}_proj" for x in "qkvo"),
            *(f"mlp.{x}_proj" for x in ("gate", "up", "down")),
            *("input_layernorm", "ffn_norm", "lm_head", "embed_tokens", "norm"),
        )
        for kind in (
            *("transposed", "scaled", "negative", "zero", "zero head", "zero head columns", "scaled head columns"),
            *("scaled row", "adjacent", "halves", "shuffled", "heads rolled", "noise rows", "rounded", "offset"),
        )
    },
    **{
        f"layer {path}": weights.other_layer(path)
        for path in ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
    },
    "layer input_layernorm": weights.other_layer("input_layernorm"),
    "tied": weights.tied,
    "head_scaled": weights.head_scaled,
    "head_capped": weights.head_capped,
    "embedding_scaled": weights.embedding_scaled,
    "embedding scale": weights.embedding_scale,
    "other_tokens": weights.other_tokens,
    "turned_tokens": weights.turned_tokens,
    "noise": weights.noise,
}


def run_job(job):
    with ExitStack() as stack, torch.no_grad():
        model = build(job["model"], getattr(torch, job["dtype"]))
        run, found = Run(model, job, stack), {}
        before = job["edit"].startswith(("inputs", "head_", "embedding_", "noise", "one token"))
        if job["edit"] and before:  # hooks that change values must run before those that record them
            EDITS[job["edit"]](run)
        if job["edit"] and not before:
            EDITS[job["edit"]](run)
        watch(run, found, job.get("silu", False))
        model(input_ids=torch.tensor([job.get("run_tokens", job["tokens"])]), use_cache=False)
    meta = {"model": Path(job["model"]).name, "tokens": job["tokens"], "dtype": job["dtype"]}
    meta |= {"torch": torch.__version__, "transformers": transformers.__version__}
    np.savez(job["out"], __meta__=json.dumps(meta), **found)


def main():
    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text()):
        run_job(job)


if __name__ == "__main__":
    main()
