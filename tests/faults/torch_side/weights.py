"""Mistakes of weights, of what goes in and of what comes out, and runs that differ every time."""

import torch
from layers import quantized
from model import ffn_norm
from torch import nn


def weight(path, kind):
    def edit(run):
        def change(w):
            d = run.model.config.head_dim
            if kind == "transposed":
                return w.T.reshape(w.shape)
            if kind == "scaled":
                return w * run.value
            if kind == "negative":
                return -w
            if kind == "zero":
                return w * 0
            if kind == "zero head":
                w[d : 2 * d] = 0
                return w
            if kind == "zero head columns":
                w[:, d : 2 * d] = 0
                return w
            if kind == "scaled head columns":
                w[:, d : 2 * d] *= run.value
                return w
            if kind == "scaled row":
                w[5] *= run.value
                return w
            if kind == "adjacent":
                return w.reshape(-1, 2, d // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
            if kind == "halves":
                return w.reshape(-1, d // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
            if kind == "shuffled":
                return w[torch.randperm(len(w), generator=run.generator)]
            if kind == "heads rolled":
                return torch.roll(w, d, 0)
            if kind == "noise rows":
                w[3:11] += w.std() * torch.randn(w[3:11].shape, generator=run.generator)
                return w
            if kind == "rounded":
                return quantized(run.value, w)
            if kind == "offset":
                return w + run.value
            raise ValueError(kind)

        if path in ("lm_head", "embed_tokens", "norm"):
            module = run.model.lm_head if path == "lm_head" else getattr(run.model.model, path)
            module.weight = nn.Parameter(change(module.weight.detach().clone()))
        else:
            run.each_weight(path, change)

    return edit


def other_layer(path):
    def edit(run):
        layers = run.model.model.layers
        with torch.no_grad():
            for n, module in zip(run.layers, list(run.modules(path)), strict=True):
                source = layers[(n + int(run.value)) % len(layers)].get_submodule(path)
                module.weight.copy_(source.weight.clone())

    return edit


def tied(run):
    run.model.lm_head.weight = run.model.model.embed_tokens.weight


def head_scaled(run):
    run.model.lm_head.register_forward_hook(lambda m, i, o: o * run.value)


def head_capped(run):
    run.model.lm_head.register_forward_hook(lambda m, i, o: run.value * torch.tanh(o / run.value))


def embedding_scaled(run):
    """Multiplied by the root of the hidden size, or by a value."""
    factor = run.value or run.model.config.hidden_size**0.5
    run.model.model.embed_tokens.register_forward_hook(lambda m, i, o: o * factor)


def embedding_scale(run):
    """Another scale in the place of that of the model."""
    module, scale = run.model.model.embed_tokens, run.model.config.hidden_size**0.5
    scale = {"missing": 1.0, "bfloat16": float(torch.tensor(scale).bfloat16())}[run.value]
    module.embed_scale = torch.tensor(scale)


def other_tokens(run):
    run.job["run_tokens"] = [(t + 1) % run.model.config.vocab_size for t in run.job["tokens"]]


def turned_tokens(run):
    run.job["run_tokens"] = run.job["tokens"][::-1]


def noise(run):
    """Every module adds noise of its own to what it returns, anew in every call, and so does every addition."""
    modules = [m for m in run.model.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    modules += [m for m in run.model.modules() if type(m).__name__.endswith("RMSNorm")]

    def hook(_m, _i, o):
        return o * (1 + run.value * torch.randn(o.shape, generator=run.generator))

    for module in modules:
        module.register_forward_hook(hook)
    for layer in run.model.model.layers:
        layer.register_forward_hook(lambda m, i, o: hook(m, i, o[0] if isinstance(o, tuple) else o))
        ffn_norm(layer).register_forward_pre_hook(lambda m, a: (hook(m, a, a[0]),))
