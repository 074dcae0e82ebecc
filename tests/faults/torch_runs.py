"""Run Hugging Face models with planted runtime mistakes and dump their stages; alone, in the interpreter with torch.

usage: torch_runs.py JOBS.json. A job: model (folder with weights.npz and config.json of plain values), tokens, dtype,
edit (name in EDITS or ""), layers (where it is planted; empty: everywhere), value, out (.npz). The dump has the keys
"stage|<layer>|<stage>", layer -1 for whole-model stages, and "__meta__".
"""

import importlib
import json
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

sys.modules["kernels"] = None  # ours must not pass for the helper of that name
import torch  # noqa: E402
import transformers  # noqa: E402
from torch import nn  # noqa: E402

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
    model = model_class(config).to(dtype)
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


# --- attention ---


def attend(run, module, q, k, v, scaling, allowed=None, repeat=None, soften=None):
    repeat = repeat or run.modelling.repeat_kv
    k, v = (repeat(x, module.num_key_value_groups) for x in (k, v))
    scores = torch.matmul(q, k.transpose(2, 3)) * scaling
    if soften is not None:
        scores = soften(scores)
    count = q.shape[2]
    ahead = torch.arange(count)[:, None] - torch.arange(count)[None, :]
    mask = ahead >= 0 if allowed is None else allowed(ahead)
    mask = mask | ~mask.any(-1, keepdim=True)
    weights = F.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v).transpose(1, 2).contiguous(), weights


def attention(change):
    """An edit that replaces the attention function; change(run, module, q, k, v, scaling) returns what that does."""

    def edit(run):
        def make(_original):
            return lambda module, q, k, v, mask, scaling, **_: change(run, module, q, k, v, scaling)

        run.replace_function("eager_attention_forward", make)

    return edit


MASKS = {
    "none": lambda ahead: ahead > -(10**9),
    "next": lambda ahead: ahead >= -1,
    "strict": lambda ahead: ahead > 0,
    "reversed": lambda ahead: ahead <= 0,
}


def masked(run, module, q, k, v, scaling):
    kind = run.value
    if isinstance(kind, int):
        return attend(run, module, q, k, v, scaling, lambda ahead: (ahead >= 0) & (ahead < kind))
    if kind.startswith("drop"):
        first = int(kind[4:])
        return attend(run, module, q, k, v, scaling, lambda a: (a >= 0) & (torch.arange(a.shape[1]) >= first)[None, :])
    return attend(run, module, q, k, v, scaling, MASKS[kind])


def grouped(run, module, q, k, v, scaling):
    heads, groups = q.shape[1], k.shape[1]
    kinds = {
        "tiled": torch.arange(heads) % groups,
        "first": torch.zeros(heads, dtype=torch.long),
        "reversed": groups - 1 - torch.arange(heads) // (heads // groups),
        "shifted": (torch.arange(heads) // (heads // groups) + 1) % groups,
    }
    return attend(run, module, q, k, v, scaling, repeat=lambda x, _n: x[:, kinds[run.value]])


def rounded_to(kind, x):
    if kind in ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"):
        return x.to(getattr(torch, kind)).to(x.dtype)
    if kind == "int8":
        step = x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
        return torch.round(x / step) * step
    if kind == "q8_0":
        blocks = x.reshape(*x.shape[:-1], -1, 32 if x.shape[-1] % 32 == 0 else 16)
        step = (blocks.abs().amax(-1, keepdim=True) / 127).to(torch.float16).to(x.dtype).clamp_min(1e-12)
        return (torch.round(blocks / step) * step).reshape(x.shape)
    raise ValueError(kind)


def kept(run, module, q, k, v, scaling):
    return attend(run, module, q, *(rounded_to(run.value, x) for x in (k, v)), scaling)


def all_kept(run, module, q, k, v, scaling):
    return attend(run, module, *(rounded_to(run.value, x) for x in (q, k, v)), scaling)


def untransposed(run, module, q, k, v, scaling):
    out, weights = attend(run, module, q, k, v, scaling)
    return out.transpose(1, 2).reshape(out.shape), weights


def heads_moved(run, module, q, k, v, scaling):
    out, weights = attend(run, module, q, k, v, scaling)
    return torch.roll(out, 1, dims=2), weights


def head_silent(run, module, q, k, v, scaling):
    out, weights = attend(run, module, q, k, v, scaling)
    out[:, :, int(run.value)] = 0
    return out, weights


def soft_capped(run, module, q, k, v, scaling):
    return attend(run, module, q, k, v, scaling, soften=lambda s: run.value * torch.tanh(s / run.value))


# --- rotary ---


def rotary(change):
    """An edit that replaces the rotation; change(run, original, q, k, frequencies, positions) returns q and k."""

    def edit(run):
        rope = run.model.model.rotary_emb

        def make(original):
            def rotate(q, k, cos, sin, *args, **kwargs):
                positions = torch.arange(q.shape[2], dtype=torch.float32)
                return change(run, original, q, k, rope.inv_freq.float(), positions)

            return rotate

        run.replace_function("apply_rotary_pos_emb", make)

    return edit


def turned(original, q, k, frequencies, positions):
    angles = (positions[:, None] * frequencies[None, :]).repeat(1, 2)[None]
    return original(q, k, angles.cos().to(q.dtype), angles.sin().to(q.dtype))


def other_theta(run, original, q, k, frequencies, positions):
    d = q.shape[-1]
    return turned(original, q, k, 1.0 / run.value ** (torch.arange(0, d, 2, dtype=torch.float) / d), positions)


def other_positions(run, original, q, k, frequencies, positions):
    count = len(positions)
    kinds = {
        "zero": positions * 0,
        "reversed": positions.flip(0),
        "double": positions * 2,
        "half": positions / 2,
        "quarter": positions / 4,
        "negative": -positions,
        "stuck": positions.clamp_max(count // 2),
        "repeated": torch.div(positions, 2, rounding_mode="floor"),
    }
    moved = kinds[run.value] if run.value in kinds else positions + float(run.value)
    return turned(original, q, k, frequencies, moved)


def only_query(run, original, q, k, frequencies, positions):
    return turned(original, q, k, frequencies, positions)[0], k


def only_key_shifted(run, original, q, k, frequencies, positions):
    return turned(original, q, k, frequencies, positions)[0], turned(original, q, k, frequencies, positions + 1)[1]


def adjacent(run, original, q, k, frequencies, positions):
    angles = positions[:, None] * frequencies[None, :]
    cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)

    def turn(x):
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)

    return turn(q), turn(k)


def partial_rotary(run, original, q, k, frequencies, positions):
    """Only the first half of every head is rotated, as by a model with partial_rotary_factor 0.5."""
    d = q.shape[-1] // 2
    own = 1.0 / run.model.config.rope_parameters["rope_theta"] ** (torch.arange(0, d, 2, dtype=torch.float) / d)
    rotated = turned(original, q[..., :d], k[..., :d], own, positions)
    return tuple(torch.cat([y, x[..., d:]], -1) for x, y in zip((q, k), rotated, strict=True))


def key_rounded(run, original, q, k, frequencies, positions):
    q, k = turned(original, q, k, frequencies, positions)
    return q, rounded_to(run.value, k)


# --- everything else ---

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
                source = layers[(n + int(run.value)) % len(layers)]
                for part in path.split("."):
                    source = getattr(source, part)
                module.weight.copy_(source.weight.clone())

    return edit


def tied(run):
    run.model.lm_head.weight = run.model.model.embed_tokens.weight


def head_scaled(run):
    run.model.lm_head.register_forward_hook(lambda m, i, o: o * run.value)


def head_capped(run):
    run.model.lm_head.register_forward_hook(lambda m, i, o: run.value * torch.tanh(o / run.value))


def embedding_scaled(run):
    run.model.model.embed_tokens.register_forward_hook(lambda m, i, o: o * run.model.config.hidden_size**0.5)


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
        layer.post_attention_layernorm.register_forward_pre_hook(lambda m, a: (hook(m, a, a[0]),))


def attention_dropout(run):
    def make(original):
        def forward(module, q, k, v, mask, scaling, **_):
            out, weights = attend(run, module, q, k, v, scaling)
            keep = (torch.rand(out.shape, generator=run.generator) > run.value).to(out.dtype)
            return out * keep / (1 - run.value), weights

        return forward

    run.replace_function("eager_attention_forward", make)


EDITS = {
    "attention_scale": attention(lambda r, m, q, k, v, s: attend(r, m, q, k, v, s * r.value)),
    "mask": attention(masked),
    "grouping": attention(grouped),
    "kv": attention(kept),
    "qkv": attention(all_kept),
    "untransposed": attention(untransposed),
    "heads_moved": attention(heads_moved),
    "head_silent": attention(head_silent),
    "soft_capped": attention(soft_capped),
    "theta": rotary(other_theta),
    "positions": rotary(other_positions),
    "only_query": rotary(only_query),
    "only_key_shifted": rotary(only_key_shifted),
    "adjacent": rotary(adjacent),
    "partial": rotary(partial_rotary),
    "key_rounded": rotary(key_rounded),
    "activation": activation,
    "gate_up_in_forward": gate_up_in_forward,
    "no_up": no_up,
    "sum_with_up": sum_with_up,
    "gate_up_modules": gate_up_modules,
    "q_k_modules": q_k_modules,
    "residual": residual,
    "eps": eps,
    **{f"eps {p}": eps_of(p) for p in ("input_layernorm", "post_attention_layernorm", "norm")},
    **{f"norm {p}": norm_forward(p) for p in ("input_layernorm", "post_attention_layernorm", "norm")},
    "no_biases": no_biases,
    **{f"bias zero {x}": bias(x, lambda r, b: b * 0) for x in ("q", "k", "v", "qkv")},
    **{f"bias twice {x}": bias(x, lambda r, b: b * 2) for x in "qkv"},
    **{f"bias minus {x}": bias(x, lambda r, b: -b) for x in "qkv"},
    **{f"bias random {x}": bias(x, lambda r, b: torch.randn(b.shape, generator=r.generator)) for x in "qkv"},
    **{
        f"inputs {name}": rounded_inputs(path)
        for name, path in (
            ("qkv", "self_attn.q_proj,self_attn.k_proj,self_attn.v_proj"),
            ("o", "self_attn.o_proj"),
            ("gate_up", "mlp.gate_proj,mlp.up_proj"),
            ("down", "mlp.down_proj"),
            ("head", "lm_head"),
        )
    },
    **{
        f"weight {kind} {path}": weight(path, kind)
        for path in (
            *(f"self_attn.{x}_proj" for x in "qkvo"),
            *(f"mlp.{x}_proj" for x in ("gate", "up", "down")),
            *("input_layernorm", "post_attention_layernorm", "lm_head", "embed_tokens", "norm"),
        )
        for kind in (
            *("transposed", "scaled", "negative", "zero", "zero head", "zero head columns", "scaled head columns"),
            *("scaled row", "adjacent", "halves", "shuffled", "heads rolled", "noise rows", "rounded", "offset"),
        )
    },
    **{
        f"layer {path}": other_layer(path)
        for path in ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
    },
    "layer input_layernorm": other_layer("input_layernorm"),
    "tied": tied,
    "head_scaled": head_scaled,
    "head_capped": head_capped,
    "embedding_scaled": embedding_scaled,
    "other_tokens": other_tokens,
    "turned_tokens": turned_tokens,
    "noise": noise,
    "attention_dropout": attention_dropout,
}


# --- the dump ---


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


def run_job(job):
    with ExitStack() as stack, torch.no_grad():
        model = build(job["model"], getattr(torch, job["dtype"]))
        run, found = Run(model, job, stack), {}
        before = job["edit"].startswith(("inputs", "head_", "embedding_", "noise"))
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
