"""What stands in place of attention, in float64 with Python loops, token by token."""

import math

import numpy as np


def mixed(out, n, x, w, c):
    """What a layer without attention gives."""
    if c.architecture.startswith("qwen3"):
        return delta_net(out, n, x, w, f"model.layers.{n}.linear_attn.", c)
    if c.architecture == "granitehybrid":
        return state_space(out, n, x, w, f"model.layers.{n}.mamba.", c)
    return short_convolution(out, n, x, w, f"model.layers.{n}.conv.", c)


def linear(x, weight):
    return np.array([[math.fsum(row * column) for column in weight] for row in x])


def convolved(x, weight, bias=None):
    """Every channel of a token and of those before it, each times its weight; the last weight is the token's own."""
    taps = weight.shape[1]
    rows = []
    for t in range(len(x)):
        seen = [(tap, t - taps + 1 + tap) for tap in range(taps) if t - taps + 1 + tap >= 0]
        rows.append([math.fsum(weight[i, tap] * x[s, i] for tap, s in seen) for i in range(x.shape[1])])
    return np.array(rows) + (0 if bias is None else bias)


def short_convolution(out, n, x, w, p, c):
    given = out[n, "conv_in"] = linear(x, w[p + "in_proj.weight"])
    before, behind, through = np.split(given, 3, axis=1)
    gated = out[n, "conv_gated"] = before * through
    swept = out[n, "convolved"] = convolved(gated, w[p + "conv.weight"], w.get(p + "conv.bias"))
    let = out[n, "conv_out"] = behind * swept
    return linear(let, w[p + "out_proj.weight"])


def delta_net(out, n, x, w, p, c):
    r = c.recurrence
    given = [linear(x, w[f"{p}{part}_proj.weight"]) for part in "qkvzba"]
    mixed_in = out[n, "delta_qkv"] = np.concatenate(given[:3], axis=1)
    z, b, a = given[3:]
    out[n, "delta_z"], out[n, "delta_b"], out[n, "delta_a"] = z, b, a
    swept = out[n, "convolved"] = convolved(mixed_in, w[p + "conv1d.weight"])
    active = out[n, "conv_silu"] = each(silu, swept)
    q, k, v = np.split(active, [r.keys, 2 * r.keys], axis=1)
    q, k = (unit(part, r.state, r.norm_eps) for part in (q, k))
    out[n, "delta_q"], out[n, "delta_k"] = q, k
    beta = out[n, "delta_beta"] = each(lambda y: 1 / (1 + math.exp(-y)), b)
    decay = [[w[p + "A_log"][h] * math.log1p(math.exp(y + w[p + "dt_bias"][h])) for h, y in enumerate(t)] for t in a]
    decay = out[n, "delta_decay"] = np.array(decay)
    heads = [remembered(q, k, v, beta, decay, head, r, c) for head in range(r.heads)]
    y = out[n, "delta"] = np.concatenate(heads, axis=1)
    rows = y.reshape(-1, r.head_dim)
    sizes = [math.sqrt(math.fsum(row * row) / r.head_dim + c.rms_norm_eps) for row in rows]
    y = np.array([row / size * w[p + "norm.weight"] for row, size in zip(rows, sizes, strict=True)]).reshape(y.shape)
    out[n, "delta_norm"], out[n, "delta_silu"] = y, each(silu, z)
    y = out[n, "delta_gated"] = y * out[n, "delta_silu"]
    return linear(y, w[p + "out_proj.weight"])


def remembered(q, k, v, beta, decay, head, r, c):
    """What a head reads from its state, token by token: (keys, values), faded, corrected, and read."""
    shared = head // (r.heads // r.groups) if c.architecture == "qwen3next" else head % r.groups
    keys, values = slice(shared * r.state, (shared + 1) * r.state), slice(head * r.head_dim, (head + 1) * r.head_dim)
    state, read = np.zeros((r.state, r.head_dim)), []
    for t in range(len(q)):
        state = state * math.exp(decay[t, head])
        held = np.array([math.fsum(state[:, j] * k[t, keys]) for j in range(r.head_dim)])
        state = state + np.outer(k[t, keys], (v[t, values] - held) * beta[t, head])
        read.append([math.fsum(state[:, j] * q[t, keys]) / math.sqrt(r.state) for j in range(r.head_dim)])
    return np.array(read)


def unit(x, size, eps):
    rows = x.reshape(-1, size)
    return np.array([row / math.sqrt(math.fsum(row * row) + eps) for row in rows]).reshape(x.shape)


def silu(x):
    return x / (1 + math.exp(-x))


def each(function, x):
    return np.array([[function(y) for y in row] for row in x])


def state_space(out, n, x, w, p, c):
    r = c.recurrence
    given = out[n, "scan_in"] = linear(x, w[p + "in_proj.weight"])
    z, mixed_in, steps = np.split(given, [r.values, r.values + r.convolved], axis=1)
    swept = out[n, "convolved"] = convolved(mixed_in, w[p + "conv1d.weight"], w.get(p + "conv1d.bias"))
    active = out[n, "conv_silu"] = each(silu, swept)
    steps = out[n, "scan_dt"] = steps + w[p + "dt_bias"]
    steps = out[n, "scan_step"] = each(lambda y: math.log1p(math.exp(y)), steps)
    y = out[n, "scan"] = np.concatenate([scanned(active, steps, w, p, head, r) for head in range(r.heads)], axis=1)
    out[n, "scan_z"], out[n, "scan_silu"] = z, each(silu, z)
    y = out[n, "scan_gated"] = y * out[n, "scan_silu"]
    if p + "norm.weight" not in w:
        return linear(y, w[p + "out_proj.weight"])
    rows = y.reshape(-1, r.values // r.groups)
    normed = [row / math.sqrt(math.fsum(row * row) / len(row) + c.rms_norm_eps) for row in rows]
    y = out[n, "scan_norm"] = np.array(normed).reshape(y.shape) * w[p + "norm.weight"]
    return linear(y, w[p + "out_proj.weight"])


def scanned(active, steps, w, p, head, r):
    """What a head reads from its state, token by token, and what goes by it."""
    own = slice(head * r.head_dim, (head + 1) * r.head_dim)
    group = head // (r.heads // r.groups)
    b = slice(r.values + group * r.state, r.values + (group + 1) * r.state)
    c = slice(b.start + r.keys, b.stop + r.keys)
    state, read = np.zeros((r.head_dim, r.state)), []
    for token, step in zip(active, steps[:, head], strict=True):
        state = state * math.exp(step * w[p + "A_log"][head]) + np.outer(token[own] * step, token[b])
        read.append(
            [math.fsum(row * token[c]) + w[p + "D"][head] * x for row, x in zip(state, token[own], strict=True)]
        )
    return np.array(read)
