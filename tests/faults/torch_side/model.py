"""A Hugging Face model of plain values, and one run of it that is edited and watched."""

import importlib
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn

F = nn.functional


def build(folder, dtype):
    c = json.loads((Path(folder) / "config.json").read_text())
    names = {"llama": ("LlamaConfig", "LlamaForCausalLM"), "qwen2": ("Qwen2Config", "Qwen2ForCausalLM")}
    config_class, model_class = (getattr(transformers, name) for name in names[c["architecture"]])
    config = config_class(
        hidden_size=c["hidden_size"],
        intermediate_size=c["intermediate_size"],
        num_hidden_layers=c["num_hidden_layers"],
        num_attention_heads=c["num_attention_heads"],
        num_key_value_heads=c["num_key_value_heads"],
        head_dim=c["head_dim"],
        vocab_size=c["vocab_size"],
        rms_norm_eps=c["rms_norm_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": c["rope_theta"]},
        tie_word_embeddings=c["tie_word_embeddings"],
        max_position_embeddings=2048,
        attn_implementation="eager",
    )
    model = model_class(config)
    frequencies = model.model.rotary_emb.inv_freq.clone()
    model = model.to(dtype)
    model.model.rotary_emb.inv_freq = frequencies  # as from_pretrained leaves them, whatever the dtype
    weights = np.load(Path(folder) / "weights.npz")
    state = {name: torch.from_numpy(weights[name]).to(dtype) for name in weights.files}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model.eval()


class Run:
    """One forward: the model, where the mistake goes, and what is undone afterwards."""

    def __init__(self, model, job, stack):
        self.model, self.job, self.stack = model, job, stack
        self.layers = job["layers"] or list(range(len(model.model.layers)))
        self.value = job["value"]
        self.modelling = importlib.import_module(type(model).__module__)
        self.layer = 0
        self.generator = torch.Generator().manual_seed(7)
        for n, layer in enumerate(model.model.layers):
            layer.register_forward_pre_hook(lambda *_, n=n: setattr(self, "layer", n))

    @property
    def here(self):
        return self.layer in self.layers

    def modules(self, path):
        """The modules at a path within every layer that is meant."""
        for n in self.layers:
            module = self.model.model.layers[n]
            for part in path.split("."):
                module = getattr(module, part)
            yield module

    def replace_function(self, name, make):
        """Replace a function of the modelling module by make(original), while it is called in a layer that is meant."""
        original = getattr(self.modelling, name)
        changed = make(original)

        def either(*args, **kwargs):
            return (changed if self.here else original)(*args, **kwargs)

        setattr(self.modelling, name, either)
        self.stack.callback(setattr, self.modelling, name, original)

    def each_weight(self, path, change):
        with torch.no_grad():
            for module in self.modules(path):
                module.weight.copy_(change(module.weight.clone()))


def watch(run, found, silu):
    """Record the stages; silu: record what the activation module returns instead of computing it from the gate."""
    model, wide = run.model, torch.float64 if run.job["dtype"] == "float64" else torch.float32

    def put(layer, stage, x):
        x = x.detach()[0].flatten(start_dim=1)
        found[f"stage|{layer}|{stage}"] = x.to(wide).numpy().copy()

    def after(module, see):
        def hook(_module, i, o):  # returns nothing, so that the output stays what it is
            see(i[0] if i else None, o[0] if isinstance(o, tuple) else o)

        module.register_forward_hook(hook)

    after(model.model.embed_tokens, lambda x, y: put(-1, "embedding", y))
    after(model.model.norm, lambda x, y: put(-1, "final_norm", y))
    after(model.lm_head, lambda x, y: put(-1, "lm_head", y))
    for n, layer in enumerate(model.model.layers):
        at, mlp, parts = layer.self_attn, layer.mlp, {}

        def projected(letter, module, x, y, n=n, parts=parts, at=at):
            plain = F.linear(x, module.weight)
            parts[letter] = (plain, y if module.bias is not None else None)
            if len(parts) == 3:
                put(n, "qkv_matmul", torch.cat([parts[p][0] for p in "qkv"], -1))
                if module.bias is not None:
                    put(n, "qkv_bias", torch.cat([parts[p][1] for p in "qkv"], -1))
                parts.clear()

        after(layer.input_layernorm, lambda x, y, n=n: put(n, "attn_norm", y))
        for letter in "qkv":
            module = getattr(at, f"{letter}_proj")
            module.register_forward_hook(lambda m, i, o, letter=letter, see=projected: see(letter, m, i[0], o))
        after(at.o_proj, lambda x, y, n=n: (put(n, "attention", x), put(n, "attn_out", y)))
        after(
            layer.post_attention_layernorm, lambda x, y, n=n: (put(n, "post_attn_residual", x), put(n, "ffn_norm", y))
        )
        after(mlp.gate_proj, lambda x, y, n=n: (put(n, "ffn_gate", y), put(n, "ffn_silu", F.silu(y))))
        if silu:
            after(mlp.act_fn, lambda x, y, n=n: put(n, "ffn_silu", y))
        after(mlp.up_proj, lambda x, y, n=n: put(n, "ffn_up", y))
        after(mlp.down_proj, lambda x, y, n=n: (put(n, "ffn_swigl", x), put(n, "ffn_out", y)))
        after(layer, lambda x, y, n=n: [put(n, s, y) for s in ("post_ffn_residual", "layer_output")])
    original = run.modelling.apply_rotary_pos_emb

    def rope(q, k, *args, **kwargs):
        q, k = original(q, k, *args, **kwargs)
        put(run.layer, "q_post_rope", q.transpose(1, 2))
        put(run.layer, "k_post_rope", k.transpose(1, 2))
        return q, k

    run.modelling.apply_rotary_pos_emb = rope
    run.stack.callback(setattr, run.modelling, "apply_rotary_pos_emb", original)
