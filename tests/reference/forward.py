"""A decoder forward in float64 with Python loops, as one would write it down from the papers on the models."""

import math
from dataclasses import replace

import numpy as np

from tests.reference.latent import latent_attention
from tests.reference.recurrent import mixed, state_space

# Norms of heads behind the rotation.
LATE_NORMS = {
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_vl", "hunyuan_moe"), ("query_layernorm", "key_layernorm")),
    "maincoder": ("q_norm", "k_norm"),
}
# Behind attention, before and behind the feed-forward block.
FOUR_NORMS = {
    "gemma2": ("post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    "afmoe": ("post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm"),
    "glm4": ("post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"),
}


def literal_forward(config, weights, tokens):
    """Every stage of a decoder by (layer, stage); weights: canonical name -> float array."""
    c, w, out = config, {name: np.asarray(x, dtype=np.float64) for name, x in weights.items()}, {}
    gemma = c.architecture.startswith("gemma")
    before = c.architecture not in ("olmo2", "olmo3", "exaone4")
    normed = layer_norm if c.architecture in LAYER_NORMS else rms_norm
    behind = not before or c.architecture in ("gemma2", "gemma3", "gemma4", "glm4", "afmoe")
    first, second, third = FOUR_NORMS.get(c.architecture, FOUR_NORMS["gemma2"])
    x = np.array([w["model.embed_tokens.weight"][t] for t in tokens])
    if gemma:
        x = x * float(np.float32(math.sqrt(c.hidden_size)))
    if c.architecture.startswith(("granite", "minicpm", "afmoe")):
        x = x * c.embedding_scale
    embedded = out[None, "embedding"] = x
    for n in range(c.num_hidden_layers):
        p = f"model.layers.{n}."
        h = x
        if before:
            h = out[n, "attn_norm"] = normed(x, w, p + "input_layernorm", c)
        if c.recurs(n):
            h = mixed(out, n, h, w, c)
        else:
            h = (latent_attention if c.kv_lora_rank else attention)(out, n, h, w, heads_of(c, n))
            h = projected(h, w, p + "self_attn.o_proj")
        attended = out[n, "attn_out"] = h
        if c.architecture == "falcon_h1":
            beside = state_space(out, n, out[n, "attn_norm"], w, p + "mamba.", c)
            out[n, "scan_out"] = beside
            h = h + beside
        if behind:
            h = out[n, "post_attn_norm"] = normed(h, w, p + first, c)
        given = x
        if not c.parallel:
            x = h = out[n, "post_attn_residual"] = x + c.residual_scale * h
        name = second if behind else "post_attention_layernorm"
        if before and (p + f"{name}.weight" in w or c.architecture == "olmo"):
            h = out[n, "ffn_norm"] = normed(x, w, p + name, c)
        elif c.parallel:
            h = out[n, "attn_norm"]
        if c.has_experts(n) and gemma:
            h = experts_beside(out, n, h, x, w, c)
        elif c.has_experts(n):
            h = experts(out, n, h, w, c)
        else:
            act = ACTIVATIONS.get(c.activation or c.architecture, gelu if gemma else silu)
            up = out[n, "ffn_up"] = projected(h, w, p + "mlp.up_proj")
            if p + "mlp.gate_proj.weight" in w:
                gate = out[n, "ffn_gate"] = projected(h, w, p + "mlp.gate_proj")
                gate = out[n, "ffn_silu"] = np.array([[act(g) for g in row] for row in gate])
                h = out[n, "ffn_swigl"] = gate * up
            else:
                h = out[n, "ffn_silu"] = np.array([[act(u) for u in row] for row in up])
            h = out[n, "ffn_out"] = projected(h, w, p + "mlp.down_proj")
        if c.parallel:
            x = out[n, "post_ffn_residual"] = out[n, "layer_output"] = given + attended + h
            continue
        if behind:
            h = out[n, "post_ffn_norm"] = normed(h, w, p + third, c)
        x = out[n, "post_ffn_residual"] = out[n, "layer_output"] = x + c.residual_scale * h
        if c.layer_embedding_size:
            x = out[n, "layer_output"] = with_layer_embedding(out, n, x, embedded, tokens, w, c)
        if p + "layer_scalar.weight" in w:
            x = out[n, "layer_output"] = x * w[p + "layer_scalar.weight"][0]
    x = out[None, "final_norm"] = normed(x, w, "model.norm", c)
    logits = linear(x, w.get("lm_head.weight", w["model.embed_tokens.weight"])) + w.get("lm_head.bias", 0)
    logits = logits * c.logits_scale
    out[None, "lm_head"] = np.array([[bent(y, c.logits_cap) for y in row] for row in logits])
    return out


def attention(out, n, x, w, c):
    """Attention of a layer before its output projection."""
    h = x
    p = f"model.layers.{n}."
    own = [name for name in "qkv" if p + f"self_attn.{name}_proj.weight" in w]
    made = [linear(h, w[p + f"self_attn.{name}_proj.weight"]) for name in own]
    out[n, "qkv_matmul"] = np.concatenate(made, axis=1)
    if len(made) == 1:
        return attention_to_another_layer(out, n, made[0], w, c)
    q, k, v = made if len(made) == 3 else (*made, made[1])  # keys stand for values that are absent
    if p + "self_attn.q_proj.bias" in w:
        q, k, v = (y + w[p + f"self_attn.{name}_proj.bias"] for name, y in zip("qkv", (q, k, v), strict=True))
        out[n, "qkv_bias"] = np.concatenate([q, k, v], axis=1)
    if c.clip_qkv is not None:
        q, k, v = (np.array([[min(max(z, -c.clip_qkv), c.clip_qkv) for z in row] for row in y]) for y in (q, k, v))
        out[n, "qkv_clip"] = np.concatenate([q, k, v], axis=1)
    late = LATE_NORMS.get(c.architecture)
    if p + "self_attn.q_norm.weight" in w and not late:
        of = norm_of_all if c.architecture in ("olmo2", "olmo3", "olmoe", "minimax_m2") else head_norm
        q, k = (of(y, w[p + f"self_attn.{name}_norm.weight"], c) for name, y in (("q", q), ("k", k)))
        out[n, "q_norm"], out[n, "k_norm"] = q, k
    if c.architecture == "gemma4":
        v = out[n, "v_norm"] = head_norm(v, 1, c)
    local = c.rope_local_theta is not None and c.layer_types[n] == "sliding_attention"
    if c.rotates(n):
        q, k = rope(q, c, local), rope(k, c, local)
    out[n, "q_post_rope"], out[n, "k_post_rope"] = q, k
    if late:
        q, k = (head_norm(y, w[p + f"self_attn.{name}.weight"], c) for y, name in ((q, late[0]), (k, late[1])))
        out[n, "q_rope_norm"], out[n, "k_rope_norm"] = q, k
    from_one = c.architecture == "llama4"
    if from_one and c.rotates(n):
        q, k = (head_norm(y, 1, c) for y in (q, k))
        out[n, "q_rope_norm"], out[n, "k_rope_norm"] = q, k
    if c.temperature is not None and not (from_one and c.rotates(n)):
        q = out[n, "q_tempered"] = q * tempered(len(q), c, from_one)
    sinks = w.get(p + "self_attn.sinks.weight")
    h = out[n, "attention"] = attend(q, k, v, c, c.window(n), sinks, c.chunk(n))
    if p + "self_attn.gate_proj.weight" in w:
        gate = out[n, "attn_gate"] = projected(x, w, p + "self_attn.gate_proj")
        h = out[n, "attn_gated"] = h * np.array([[1 / (1 + math.exp(-g)) for g in row] for row in gate])
    return h


def attention_to_another_layer(out, n, q, w, c):
    """Attention to keys and values of the last layer of the same type that has its own."""
    q = out[n, "q_norm"] = head_norm(q, w[f"model.layers.{n}.self_attn.q_norm.weight"], c)
    q = out[n, "q_post_rope"] = rope(q, c, c.layer_types[n] == "sliding_attention")
    alike = [m for m in range(n) if (m, "k_post_rope") in out and c.layer_types[m] == c.layer_types[n]]
    k, v = (out[alike[-1], stage] for stage in ("k_post_rope", "v_norm"))
    h = out[n, "attention"] = attend(q, k, v, c, c.window(n))
    return h


def with_layer_embedding(out, n, x, embedded, tokens, w, c):
    """What a layer adds that comes of its own embedding of the tokens."""
    p, size = f"model.layers.{n}.", c.layer_embedding_size
    table = w["model.embed_tokens_per_layer.weight"][:, n * size : (n + 1) * size]
    own = out[n, "ple_embedding"] = np.array([table[t] for t in tokens]) * float(np.float32(math.sqrt(size)))
    small, half = (float(np.float32(1) / np.sqrt(np.float32(value))) for value in (c.hidden_size, 2))
    projected_ = out[n, "ple_projection"] = linear(embedded, w[p + "per_layer_model_projection.weight"]) * small
    normed = out[n, "ple_norm"] = rms_norm(projected_, w, "model.per_layer_projection_norm", c)
    given = out[n, "ple_input"] = (normed + own) * half
    gate = out[n, "ple_gate"] = projected(x, w, p + "per_layer_input_gate")
    gate = out[n, "ple_gelu"] = np.array([[gelu(g) for g in row] for row in gate])
    gated_ = out[n, "ple_gated"] = gate * given
    h = out[n, "ple_out"] = projected(gated_, w, p + "per_layer_projection")
    h = out[n, "post_ple_norm"] = rms_norm(h, w, p + "post_per_layer_input_norm", c)
    out[n, "post_ple_residual"] = x + h
    return x + h


def experts_beside(out, n, h, x, w, c):
    """Experts beside a feed-forward block, whose router and experts read what attention left, each normed by itself."""
    p = f"model.layers.{n}."
    gate = out[n, "shared_gate"] = projected(h, w, p + "mlp.gate_proj")
    up = out[n, "shared_up"] = projected(h, w, p + "mlp.up_proj")
    gate = out[n, "shared_silu"] = np.array([[gelu(g) for g in row] for row in gate])
    out[n, "shared_swigl"] = gate * up
    beside = out[n, "shared_out"] = projected(gate * up, w, p + "mlp.down_proj")
    beside = out[n, "shared_norm"] = rms_norm(beside, w, p + "post_feedforward_layernorm_1", c)
    small = float(np.float32(1) / np.sqrt(np.float32(c.hidden_size)))
    routed = out[n, "router_norm"] = rms_norm(x, w, p + "mlp.gate_norm", c) * small
    read = out[n, "expert_norm"] = rms_norm(x, w, p + "pre_feedforward_layernorm_2", c)
    h = out[n, "expert_sum"] = experts(out, n, read, w, replace(c, shared_intermediate_size=0), routed)
    h = out[n, "expert_sum_norm"] = rms_norm(h, w, p + "post_feedforward_layernorm_2", c)
    out[n, "ffn_out"] = h + beside
    return out[n, "ffn_out"]


def heads_of(c, n):
    """The settings with the heads of a layer."""
    if c.full_head_dim is None or c.layer_types[n] == "sliding_attention":
        return c
    return replace(c, head_dim=c.full_head_dim, num_key_value_heads=c.full_kv_heads)


def experts(out, n, x, w, c, routed=None):
    """The feed-forward block of a layer with experts, token by token. routed : what the router reads; None for x."""
    p = f"model.layers.{n}.mlp."
    logits = out[n, "router"] = projected(x if routed is None else routed, w, p + "gate")
    stages = ("expert_weights", "expert_gate", "expert_up", "expert_silu", "expert_swigl", "expert_out", "ffn_out")
    before = c.architecture == "llama4"
    if before:
        stages = (stages[0], "expert_input", *stages[1:])
    rows = {stage: [] for stage in stages}
    for token, scores in zip(x, logits, strict=True):
        if c.expert_scoring == "softmax of chosen":
            shares = [math.exp(score - max(scores)) for score in scores]
        elif c.expert_scoring.startswith("sigmoid"):
            shares = [1 / (1 + math.exp(-score)) for score in scores]
        else:
            powers = [math.exp(score - max(scores)) for score in scores]
            shares = [power / math.fsum(powers) for power in powers]
        added = w.get(p + "gate.e_score_correction_bias", np.zeros(len(shares)))
        seen = looked_at([shares[e] + added[e] for e in range(len(shares))], c)
        best = sorted(seen, key=lambda e: -(shares[e] + added[e]))[: c.num_experts_per_tok]
        total = (
            math.fsum(shares[e] for e in best) if c.norm_topk_prob or c.expert_scoring == "softmax of chosen" else 1.0
        )
        counts = {e: shares[e] / total * c.routed_scaling_factor for e in sorted(best)}
        rows["expert_weights"].append([counts.get(e, 0.0) for e in range(len(shares))])
        given = {stage: [] for stage in stages[1:-1]}
        whole = np.zeros(len(token))
        for e, count in counts.items():
            read = token * (count if before else 1)
            gate, up = (projected([read], w, f"{p}experts.{e}.{part}_proj")[0] for part in ("gate", "up"))
            active, swigl = gated(gate, up, c)
            result = projected([swigl], w, f"{p}experts.{e}.down_proj")[0]
            result = result * w.get(f"{p}experts.{e}.down_proj.output_scale", 1)
            found = (*((read,) if before else ()), gate, up, active, swigl, result)
            for stage, values in zip(stages[1:-1], found, strict=True):
                given[stage].extend(values)
            whole = whole + (1 if before else count) * result
        for stage, values in given.items():
            rows[stage].append(values)
        rows["ffn_out"].append(whole)
    for stage in stages:
        out[n, stage] = np.array(rows[stage])
    return shared(out, n, x, w, c) if c.shared_intermediate_size else out[n, "ffn_out"]


def looked_at(scores, c):
    """The experts of the groups whose best ones come first."""
    size = len(scores) // c.n_group
    groups = [range(g * size, (g + 1) * size) for g in range(c.n_group)]
    worth = {group: math.fsum(sorted((scores[e] for e in group), reverse=True)[: c.group_best]) for group in groups}
    kept = sorted(groups, key=lambda group: -worth[group])[: c.topk_group] if c.n_group > 1 else groups
    return [e for group in kept for e in group]


def gated(gate, up, c):
    if c.architecture == "gemma4":
        active = np.array([gelu(g) for g in gate])
        return active, active * up
    if c.swiglu_limit is None:
        active = np.array([silu(g) for g in gate])
        return active, active * up
    gate = [min(g, c.swiglu_limit) for g in gate]
    active = np.array([g / (1 + math.exp(-c.swiglu_alpha * g)) for g in gate])
    return active, active * np.array([1 + min(max(u, -c.swiglu_limit), c.swiglu_limit) for u in up])


def shared(out, n, x, w, c):
    """What is computed for every token beside the experts, added to what they give."""
    p = f"model.layers.{n}.mlp.shared_expert"
    out[n, "expert_sum"] = out[n, "ffn_out"]
    gate = out[n, "shared_gate"] = linear(x, w[p + ".gate_proj.weight"])
    up = out[n, "shared_up"] = linear(x, w[p + ".up_proj.weight"])
    active = out[n, "shared_silu"] = np.array([[g / (1 + math.exp(-g)) for g in row] for row in gate])
    out[n, "shared_swigl"] = active * up
    beside = out[n, "shared_out"] = linear(active * up, w[p + ".down_proj.weight"])
    if p + "_gate.weight" in w:
        own = out[n, "shared_router"] = linear(x, w[p + "_gate.weight"])
        beside = out[n, "shared_gated"] = np.array(
            [row / (1 + math.exp(-g[0])) for row, g in zip(beside, own, strict=True)]
        )
    out[n, "ffn_out"] = out[n, "expert_sum"] + beside
    return out[n, "ffn_out"]


def bent(x, cap):
    return x if cap is None else cap * math.tanh(x / cap)


def linear(x, weight):
    return np.array([[math.fsum(row * column) for column in weight] for row in x])


def projected(x, w, name):
    return linear(x, w[name + ".weight"]) + w.get(name + ".bias", 0)


def rms_norm(x, w, name, c):
    return norm(x, w[name + ".weight"], c.rms_norm_eps)


def layer_norm(x, w, name, c):
    out = []
    for row in x:
        mean = math.fsum(row) / len(row)
        variance = math.fsum((row - mean) ** 2) / len(row)
        out.append((row - mean) / math.sqrt(variance + c.rms_norm_eps))
    return np.array(out) * w.get(name + ".weight", 1) + w.get(name + ".bias", 0)


def norm(x, weight, eps):
    return np.array([row / math.sqrt(math.fsum(row * row) / len(row) + eps) * weight for row in x])


def head_norm(x, weight, c):
    return norm(x.reshape(-1, c.head_dim), weight, c.rms_norm_eps).reshape(x.shape)


def norm_of_all(x, weight, c):
    return norm(x, weight, c.rms_norm_eps)


def gelu(x):
    return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x):
    return x / 2 * (1 + math.erf(x / math.sqrt(2)))


def silu(x):
    return x / (1 + math.exp(-x))


def relu_squared(x):
    return max(x, 0.0) ** 2


LAYER_NORMS = (
    *("starcoder2", "cohere", "cohere2", "gpt_neox", "phi", "nemotron", "orion", "jais2", "olmo", "codeshell"),
    "dbrx",
)
ACTIVATIONS = {
    "starcoder2": gelu,
    "gelu_new": gelu,
    "gelu": gelu_erf,
    **dict.fromkeys(("arcee", "nemotron", "jais2"), relu_squared),
    **dict.fromkeys(("phi", "codeshell"), gelu),
}


def rope(x, c, local=False):
    base, factors = (c.rope_local_theta, None) if local else (c.rope_theta, c.rope_factors)
    out = x.copy()
    turned = c.rotary_dim or c.head_dim
    half, magnitude = turned // 2, 1.0 if local else c.rope_attention_factor
    for position, row in enumerate(x):
        for head in range(len(row) // c.head_dim):
            for i in range(half):
                factor = factors[i] if factors else 1.0
                angle = position / base ** (2 * i / turned) / factor
                first = head * c.head_dim + (i if c.rope_type == "neox" else 2 * i)
                second = head * c.head_dim + (i + half if c.rope_type == "neox" else 2 * i + 1)
                cos, sin = math.cos(angle) * magnitude, math.sin(angle) * magnitude
                out[position, first] = row[first] * cos - row[second] * sin
                out[position, second] = row[second] * cos + row[first] * sin
    return out


def tempered(tokens, c, first=0):
    """What queries are multiplied by, token by token. first : the position of the first one."""
    lengths = [(t + first) // c.temperature_length for t in range(tokens)]
    return np.array([[1 + c.temperature * math.log(1 + length)] for length in lengths])


def attend(q, k, v, c, window=None, sinks=None, chunk=None):
    out = np.zeros_like(q)
    for head in range(c.num_attention_heads):
        own = slice(head * c.head_dim, (head + 1) * c.head_dim)
        group = head * c.num_key_value_heads // c.num_attention_heads
        shared = slice(group * c.head_dim, (group + 1) * c.head_dim)
        for t in range(len(q)):
            seen = range(t + 1 if c.causal else len(q))
            seen = [s for s in seen if window is None or t - s < window]
            seen = [s for s in seen if chunk is None or s >= t // chunk * chunk]
            scores = [
                math.fsum(q[t, own] * k[s, shared]) * (c.attention_scale or 1 / math.sqrt(c.head_dim)) for s in seen
            ]
            scores = [bent(score, c.attention_cap) for score in scores]
            scores = scores if sinks is None else [*scores, sinks[head]]
            weights = [math.exp(score - max(scores)) for score in scores]
            out[t, own] = sum(weight / sum(weights) * v[s, shared] for s, weight in zip(seen, weights, strict=False))
    return out
