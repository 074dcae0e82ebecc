"""A Hugging Face model of plain values, and one run of it that is edited and watched."""

import importlib
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn

F = nn.functional


def ffn_norm(layer):
    """The norm before the feed-forward block."""
    return layer.pre_feedforward_layernorm if normed_behind(layer) else layer.post_attention_layernorm


def normed_behind(layer):
    """Whether a layer has norms behind both blocks as well."""
    return hasattr(layer, "pre_feedforward_layernorm")


def added(module):
    """What a norm adds to its weight: gemma's keep it less 1."""
    return 1 if hasattr(module, "eps") else 0


def build(folder, dtype):
    """The model as from_pretrained makes it: tables of rotary frequencies stay float32, whatever the dtype."""
    config = json.loads((Path(folder) / "config.json").read_text())
    config = transformers.AutoConfig.for_model(**config, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
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
        self.activation = model.model.layers[0].mlp.act_fn.forward  # before any edit, and without its hooks
        self.modelling = importlib.import_module(type(model).__module__)
        self.layer, self.mask = 0, None
        self.generator = torch.Generator().manual_seed(7)
        for n, layer in enumerate(model.model.layers):
            layer.register_forward_pre_hook(lambda *_, n=n: setattr(self, "layer", n))

    @property
    def here(self):
        return self.layer in self.layers

    def modules(self, path):
        """The modules at a path within every layer that is meant."""
        for n in self.layers:
            layer = self.model.model.layers[n]
            yield ffn_norm(layer) if path == "ffn_norm" else layer.get_submodule(path)

    @property
    def frequencies(self):
        """Of the rotation in the layer that runs, in float32."""
        rope = self.model.model.rotary_emb
        name = "inv_freq" if hasattr(rope, "inv_freq") else f"{self.layer_type}_inv_freq"
        return getattr(rope, name).float()

    @property
    def layer_type(self):
        return self.model.config.layer_types[self.layer]

    @property
    def rope(self):
        """Settings of the rotation in the layer that runs."""
        settings = self.model.config.rope_parameters
        return settings if "rope_theta" in settings else settings[self.layer_type]

    def frequencies_of(self, base, size):
        """With another base or of narrower heads, stretched as those of the layer that runs."""
        return 1.0 / base ** (torch.arange(0, size, 2, dtype=torch.float) / size) / self.rope.get("factor", 1.0)

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
                module.weight.copy_(change(module.weight + added(module)) - added(module))


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

    def normed(n, stage, x, y):
        """Puts the heads of every token side by side: some models have the heads first."""
        tokens = len(run.job["tokens"])
        first = x.shape[1] == tokens and (x.shape[2] != tokens or x.stride(1) >= x.stride(2))
        put(n, stage, y if first else y.transpose(1, 2))

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
            if hasattr(at, f"{letter}_norm"):
                after(getattr(at, f"{letter}_norm"), lambda x, y, n=n, stage=f"{letter}_norm": normed(n, stage, x, y))
        after(at.o_proj, lambda x, y, n=n: (put(n, "attention", x), put(n, "attn_out", y)))
        if normed_behind(layer):
            after(layer.post_attention_layernorm, lambda x, y, n=n: put(n, "post_attn_norm", y))
            after(layer.post_feedforward_layernorm, lambda x, y, n=n: put(n, "post_ffn_norm", y))
        after(ffn_norm(layer), lambda x, y, n=n: (put(n, "post_attn_residual", x), put(n, "ffn_norm", y)))
        after(mlp.gate_proj, lambda x, y, n=n: (put(n, "ffn_gate", y), put(n, "ffn_silu", run.activation(y))))
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
