"""Latent attention with loops, as its paper has it: keys and values of every head are made first."""

import math

import numpy as np


def latent_attention(out, n, x, w, c):
    """What attention gives before its output projection; between, the stages of an engine that joins other products."""
    p, count, turned, rank = f"model.layers.{n}.self_attn.", c.num_attention_heads, c.rotary_dim, c.kv_lora_rank
    still = c.head_dim - turned
    if c.q_lora_rank:
        made = out[n, "q_a"] = product(x, w[p + "q_a_proj.weight"])
        made = out[n, "q_a_norm"] = normed(made, w[p + "q_a_layernorm.weight"], c)
        q = out[n, "q_matmul"] = product(made, w[p + "q_b_proj.weight"])
    else:
        q = out[n, "q_matmul"] = product(x, w[p + "q_proj.weight"])
    both = out[n, "kv_a"] = product(x, w[p + "kv_a_proj_with_mqa.weight"])
    latents = out[n, "kv_a_norm"] = normed(both[:, :rank], w[p + "kv_a_layernorm.weight"], c)
    k_turned = out[n, "k_post_rope"] = rotated(both[:, rank:], c)
    given = {stage: [] for stage in ("q_post_rope", "q_absorbed", "q_latent", "latent_attention", "attention")}
    for head in range(count):
        mine = q[:, head * c.head_dim : (head + 1) * c.head_dim]
        q_turned = rotated(mine[:, still:], c)
        of_keys, of_values = (w[p + f"{part}_b_proj.{head}.weight"] for part in "kv")
        keys = np.concatenate([product(latents, of_keys.T), k_turned], axis=1)
        values = product(latents, of_values)
        queries = np.concatenate([mine[:, :still], q_turned], axis=1)
        shares = weights(queries, keys, c)
        absorbed = product(mine[:, :still], of_keys)
        given["q_post_rope"].append(q_turned)
        given["q_absorbed"].append(absorbed)
        given["q_latent"].append(np.concatenate([absorbed, q_turned], axis=1))
        given["latent_attention"].append(shares @ latents)
        given["attention"].append(shares @ values)
    for stage, parts in given.items():
        out[n, stage] = np.concatenate(parts, axis=1)
    out[n, "k_latent"] = np.concatenate([latents, k_turned], axis=1)
    return out[n, "attention"]


def weights(q, k, c):
    """What every token takes of every other, (tokens, tokens)."""
    found = np.zeros((len(q), len(q)))
    for t in range(len(q)):
        seen = range(t + 1 if c.causal else len(q))
        scores = [math.fsum(q[t] * k[s]) * (c.attention_scale or 1 / math.sqrt(c.head_dim)) for s in seen]
        powers = [math.exp(score - max(scores)) for score in scores]
        found[t, : len(powers)] = np.array(powers) / math.fsum(powers)
    return found


def product(x, weight):
    return np.array([[math.fsum(row * column) for column in weight] for row in x])


def normed(x, weight, c):
    eps = c.latent_eps or c.rms_norm_eps
    return np.array([row / math.sqrt(math.fsum(row * row) / len(row) + eps) * weight for row in x])


def rotated(x, c):
    size, out = x.shape[1], x.copy()
    for position, row in enumerate(x):
        for i in range(size // 2):
            angle = position / c.rope_theta ** (2 * i / size) / (c.rope_factors[i] if c.rope_factors else 1)
            one, two = (i, i + size // 2) if c.rope_type == "neox" else (2 * i, 2 * i + 1)
            cos, sin = (turn(angle) * c.rope_attention_factor for turn in (math.cos, math.sin))
            out[position, one], out[position, two] = row[one] * cos - row[two] * sin, row[two] * cos + row[one] * sin
    return out
