"""Mistakes of the other operations of a layer: activation, residuals, norms, biases, rounded inputs of products."""

import torch
from torch import nn

F = nn.functional

ACTIVATIONS = {
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
        normed = layer.input_layernorm(x)
        a = layer.self_attn(hidden_states=normed, **kw)[0]
        first = {"attention": a, "normed": normed + a, "twice": x + 2 * a, "minus": x - a, "half": x + 0.5 * a}
        y = first.get(kind, x + a)
        second = layer.post_attention_layernorm(y)
        m = layer.mlp(second)
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


def eps(run):
    for path in ("input_layernorm", "post_attention_layernorm"):
        for norm in run.modules(path):
            norm.variance_epsilon = run.value
    if len(run.layers) == len(run.model.model.layers):
        run.model.model.norm.variance_epsilon = run.value


def eps_of(path):
    def edit(run):
        norms = [run.model.model.norm] if path == "norm" else run.modules(path)
        for norm in norms:
            norm.variance_epsilon = run.value

    return edit


def norm_forward(path):
    def edit(run):
        def one_plus(n, x):
            y = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + n.variance_epsilon)
            return (y * (1 + n.weight.float())).to(x.dtype)

        def centred(n, x):
            y = x.float() - x.float().mean(-1, keepdim=True)
            return n.weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + n.variance_epsilon)).to(x.dtype)

        def plain(n, x):
            return (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + n.variance_epsilon)).to(x.dtype)

        kinds = {"one_plus": one_plus, "centred": centred, "plain": plain, "none": lambda n, x: x.clone()}
        norms = [run.model.model.norm] if path == "norm" else run.modules(path)
        for norm in norms:
            norm.forward = lambda x, norm=norm: kinds[run.value](norm, x)

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
