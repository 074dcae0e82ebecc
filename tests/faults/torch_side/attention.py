"""Mistakes of attention and of the rotation: edits that replace the functions of the modelling module."""

import torch
from torch import nn

F = nn.functional


def attend(run, module, q, k, v, scaling, allowed=None, repeat=None, soften=None):
    repeat = repeat or run.modelling.repeat_kv
    k, v = (repeat(x, module.num_key_value_groups) for x in (k, v))
    scores = torch.matmul(q, k.transpose(2, 3)) * scaling
    if soften is not None:
        scores = soften(scores)
    mask = run.mask if allowed is None else allowed(distances(q.shape[2]))
    mask = mask | ~mask.any(-1, keepdim=True)
    weights = F.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v).transpose(1, 2).contiguous(), weights


def distances(count):
    """How many tokens every token is after every other."""
    return torch.arange(count)[:, None] - torch.arange(count)[None, :]


def attention(change):
    """An edit that replaces the attention function; change(run, module, q, k, v, scaling) returns what that does."""

    def edit(run):
        def make(_original):
            def attend(module, q, k, v, mask, scaling, **_):
                run.mask = distances(q.shape[2]) >= 0 if mask is None else mask[0, 0] > -1  # what a token sees
                return change(run, module, q, k, v, scaling)

            return attend

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
    if kind.startswith(("unshifted", "alone")):
        begin = int(kind.split()[1])
        return attend(run, module, q, k, v, scaling, lambda ahead: in_chunks(kind.split()[0], begin, ahead))
    if kind.startswith("drop"):
        first = int(kind[4:])
        return attend(run, module, q, k, v, scaling, lambda a: run.mask & (torch.arange(a.shape[1]) >= first)[None, :])
    return attend(run, module, q, k, v, scaling, MASKS[kind])


def in_chunks(kind, begin, ahead):
    """The mask of a prompt whose second chunk is masked as if it were the first, or sees nothing of the first."""
    at = torch.arange(ahead.shape[0])[:, None]
    key = at - ahead
    later = at >= begin
    second = key <= at - begin if kind == "unshifted" else (key >= begin) & (key <= at)
    return torch.where(later, second, key <= at)


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


def rotary(change):
    """An edit that replaces the rotation; change(run, original, q, k, frequencies, positions) returns q and k."""

    def edit(run):
        def make(original):
            def rotate(q, k, cos, sin, *args, **kwargs):
                positions = torch.arange(q.shape[2], dtype=torch.float32)
                return change(run, original, q, k, run.frequencies, positions)

            return rotate

        run.replace_function("apply_rotary_pos_emb", make)

    return edit


def turned(original, q, k, frequencies, positions):
    angles = (positions[:, None] * frequencies[None, :]).repeat(1, 2)[None]
    return original(q, k, angles.cos().to(q.dtype), angles.sin().to(q.dtype))


def other_theta(run, original, q, k, frequencies, positions):
    return turned(original, q, k, run.frequencies_of(run.value, q.shape[-1]), positions)


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


def rounded_tables(run, original, q, k, frequencies, positions):
    """Parts of the tables in bfloat16, as a model has them that was cast as a whole."""

    def kept(part, x):
        return x.to(torch.bfloat16).float() if part in run.value.split() else x

    angles = kept("angles", kept("positions", positions)[:, None] * kept("frequencies", frequencies)[None, :])
    cos, sin = (kept("cosines", f(angles.repeat(1, 2))[None]) for f in (torch.cos, torch.sin))
    return original(q, k, cos.to(q.dtype), sin.to(q.dtype))


def two_settings(run, original, q, k, frequencies, positions):
    """Another base, and the other pairs, other positions, or a linear scaling."""
    other, what = run.frequencies_of(500000.0, q.shape[-1]), run.value.split()[1]
    moved = {"shift": positions + 1, "half": positions / 2}.get(what, positions)
    if what == "type":
        return adjacent(run, original, q, k, other, moved)
    return turned(original, q, k, other, moved)


def stretched(run, original, q, k, frequencies, positions):
    """Frequencies divided once more, as by a linear scaling."""
    return turned(original, q, k, frequencies / run.value, positions)


def of_other_layers(run, original, q, k, frequencies, positions):
    """The rotation that layers of another kind have."""
    return turned(original, q, k, getattr(run.model.model.rotary_emb, f"{run.value}_inv_freq").float(), positions)


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
    own = run.frequencies_of(run.rope["rope_theta"], d)
    rotated = turned(original, q[..., :d], k[..., :d], own, positions)
    return tuple(torch.cat([y, x[..., d:]], -1) for x, y in zip((q, k), rotated, strict=True))


def key_rounded(run, original, q, k, frequencies, positions):
    q, k = turned(original, q, k, frequencies, positions)
    return q, rounded_to(run.value, k)
