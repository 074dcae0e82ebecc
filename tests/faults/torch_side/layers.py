"""Mistakes of the other operations of a layer: activation, residuals, norms, biases, rounded inputs of products."""

import torch
from model import added, ffn_norm, normed_behind
from torch import nn

F = nn.functional

ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x) ** 2,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "identity": lambda x: x,
    "softplus": F.softplus,
    "mish": F.mish,
    "leaky": F.leaky_relu,
    "elu": F.elu,
}


def activation(run):
    for mlp in run.modules("mlp"):
        mlp.act_fn = Function(ACTIVATIONS[run.value])


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def mlp_forward(run, forward):
    for mlp in run.modules("mlp"):
        mlp.forward = lambda x, mlp=mlp: forward(mlp, x)


def gate_up_in_forward(run):
    mlp_forward(run, lambda m, x: m.down_proj(m.act_fn(m.up_proj(x)) * m.gate_proj(x)))


def no_up(run):
    mlp_forward(run, lambda m, x: (m.up_proj(x), m.down_proj(m.act_fn(m.gate_proj(x))))[1])


def sum_with_up(run):
    mlp_forward(run, lambda m, x: m.down_proj(m.act_fn(m.gate_proj(x)) + m.up_proj(x)))


def gate_up_modules(run):
    for mlp in run.modules("mlp"):
        mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj


def q_k_modules(run):
    for at in run.modules("self_attn"):
        at.q_proj, at.k_proj = at.k_proj, at.q_proj


def layer_forward(run, forward):
    for n in run.layers:
        layer = run.model.model.layers[n]
        layer.forward = lambda hidden_states, layer=layer, **kw: forward(layer, hidden_states, kw)


def residual(run):
    kind = run.value

    def forward(layer, x, kw):
        behind = normed_behind(layer)
        normed = layer.input_layernorm(x)
        a = layer.self_attn(hidden_states=normed, **kw)[0]
        a = layer.post_attention_layernorm(a) if behind else a
        first = {"attention": a, "normed": normed + a, "twice": x + 2 * a, "minus": x - a, "half": x + 0.5 * a}
        y = first.get(kind, x + a)
        second = ffn_norm(layer)(y)
        m = layer.mlp(second)
        m = layer.post_feedforward_layernorm(m) if behind else m
        last = {
            "mlp": m,
            "skip": x + m,
            "mlp normed": second + m,
            "mlp twice": y + 2 * m,
            "branch": y,
            "mlp minus": y - m,
        }
        return last.get(kind, y + m)

    layer_forward(run, forward)


def norms_at(run, path):
    """The norms at a path of every layer that is meant, or the last one."""
    return [run.model.model.norm] if path == "norm" else list(run.modules(path))


def set_eps(norm, value):
    setattr(norm, "eps" if hasattr(norm, "eps") else "variance_epsilon", value)


def normed(norm, x, scale):
    """A norm with another scale than its own."""
    eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    return (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps) * scale).to(x.dtype)


def scale_of(norm):
    """What a norm multiplies with."""
    return norm.weight.float() + added(norm)


def eps(run):
    paths = [f"{name}_layernorm" for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")]
    paths += ["self_attn.q_norm", "self_attn.k_norm"]
    for n in run.layers:
        for path, module in run.model.model.layers[n].named_modules():
            if path in paths:
                set_eps(module, run.value)
    if len(run.layers) == len(run.model.model.layers):
        set_eps(run.model.model.norm, run.value)


def eps_of(path):
    def edit(run):
        for norm in norms_at(run, path):
            set_eps(norm, run.value)

    return edit


NORMS = {
    "one_plus": lambda n, x: normed(n, x, 1 + scale_of(n)),
    "less_one": lambda n, x: normed(n, x, scale_of(n) - 1),
    "centred": lambda n, x: normed(n, x - x.mean(-1, keepdim=True), scale_of(n)),
    "plain": lambda n, x: normed(n, x, 1),
    "none": lambda n, x: x.clone(),
}


def norm_forward(path):
    def edit(run):
        for norm in norms_at(run, path):
            norm.forward = lambda x, norm=norm: NORMS[run.value](norm, x)

    return edit


def norms_exchanged(path, other):
    """Each of two norms of a layer with the weight of the other."""

    def edit(run):
        with torch.no_grad():
            for one, two in zip(run.modules(path), run.modules(other), strict=True):
                one.weight, two.weight = two.weight, one.weight

    return edit


def layer_types(run):
    """Layers that slide are full ones, and the others slide."""
    config = run.model.config
    config.layer_types = [next(t for t in set(config.layer_types) if t != own) for own in config.layer_types]


def heads_together(path):
    """All heads of a token are normed as one vector."""

    def edit(run):
        def forward(norm, x):
            tokens = len(run.job["tokens"])
            first = x.shape[1] == tokens and (x.shape[2] != tokens or x.stride(1) >= x.stride(2))
            rows = x if first else x.transpose(1, 2)
            together = normed(norm, rows.flatten(2), scale_of(norm).repeat(rows.shape[2])).reshape(rows.shape)
            return together if first else together.transpose(1, 2)

        for norm in run.modules(path):
            norm.forward = lambda x, norm=norm: forward(norm, x)

    return edit


def bias(letters, change):
    def edit(run):
        with torch.no_grad():
            for at in run.modules("self_attn"):
                for letter in letters:
                    module = getattr(at, f"{letter}_proj")
                    module.bias.copy_(change(run, module.bias.clone()))

    return edit


def no_biases(run):
    for at in run.modules("self_attn"):
        for letter in "qkv":
            getattr(at, f"{letter}_proj").bias = None


def rounded_inputs(path):
    """Activations rounded before a product."""

    def edit(run):
        def hook(_module, args):
            return (quantized(run.value, args[0]), *args[1:])

        modules = [run.model.lm_head] if path == "lm_head" else [m for p in path.split(",") for m in run.modules(p)]
        for module in modules:
            module.register_forward_pre_hook(hook)

    return edit


def one_token(path):
    """The second half of the channels of the last token is never written."""

    def edit(run):
        def hook(_module, _args, out):
            out = out.clone()
            out[:, -1, out.shape[-1] // 2 :] = 0
            return out

        for module in [run.model.lm_head] if path == "lm_head" else list(run.modules(path)):
            module.register_forward_hook(hook)

    return edit


def quantized(kind, x):
    if kind in ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"):
        return x.to(getattr(torch, kind)).to(x.dtype)
    if kind == "int8 token":
        step = x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
    elif kind == "int8 tensor":
        step = x.abs().amax().clamp_min(1e-12) / 127
    elif kind == "int8 token 128":
        step = x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 128
        return (torch.round(x / step).clamp(-128, 127)) * step
    elif kind == "int4 token":
        step = x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 7
    elif kind == "fp8 scaled":
        step = x.abs().amax().clamp_min(1e-12) / 448
        return (x / step).to(torch.float8_e4m3fn).to(x.dtype) * step
    elif kind == "uint8 token":
        low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        step = (high - low).clamp_min(1e-12) / 255
        zero = torch.round(-low / step)
        return (torch.round(x / step + zero).clamp(0, 255) - zero) * step
    else:
        size = int(kind.split()[1])
        size = size if x.shape[-1] % size == 0 else 32
        blocks = x.reshape(*x.shape[:-1], -1, size)
        step = blocks.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
        return (torch.round(blocks / step) * step).reshape(x.shape)
    return torch.round(x / step) * step
