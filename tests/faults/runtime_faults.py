"""Mistakes of a runtime that any model can have: edits of Hugging Face models (torch_side), found as what."""

from tests.faults.runtime_fault import RuntimeFault, each

_R = RuntimeFault
_W = ("weights",)
_ACTS = (
    *("gelu", "gelu_tanh", "quick_gelu", "relu", "relu2", "sigmoid", "tanh", "identity", "softplus", "mish"),
    *("leaky", "elu", "silu"),
)
_ROUNDINGS = (
    *("int8 token", "int8 tensor", "int8 token 128", "uint8 token", "int4 token", "int8 32", "int8 64", "float16"),
    *("bfloat16", "float8_e4m3fn", "float8_e5m2", "fp8 scaled"),
)
_MATMUL = {
    "self_attn.q_proj": "qkv_matmul",
    "self_attn.k_proj": "qkv_matmul",
    "self_attn.v_proj": "qkv_matmul",
    "self_attn.o_proj": "attn_out",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_out",
}

RUNTIME_FAULTS: tuple[RuntimeFault, ...] = (
    *each(
        "attention_scale",
        "attention_scale",
        (2.0, 0.5, 4.0, 0.25, 1.1),
        ("attention",),
        ("graph",),
        ("attention_scale",),
    ),
    _R(
        "attention_scale none",
        "attention_scale",
        lambda c: c.head_dim**0.5,
        ("attention",),
        ("graph",),
        ("attention_scale",),
    ),
    _R(
        "attention_scale 1/d",
        "attention_scale",
        lambda c: c.head_dim**-0.5,
        ("attention",),
        ("graph",),
        ("attention_scale",),
    ),
    *each(
        "causal_mask",
        "mask",
        ("none", "next", "strict", "reversed", 2, 3, "drop1", "drop2", "unshifted 4", "alone 3"),
        ("attention",),
        ("graph",),
        ("causal_mask",),
    ),
    *each(
        "head_grouping",
        "grouping",
        ("tiled", "first", "reversed", "shifted"),
        ("attention",),
        ("config", "graph"),
        ("head_grouping",),
        grouped=True,
    ),
    *each(
        "kv_precision",
        "kv",
        ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "q8_0"),
        ("attention",),
        ("numerics",),
        ("kv_precision",),
    ),
    *each("qkv_precision", "qkv", ("float16", "bfloat16"), ("attention",), ("numerics",), ("kv_precision",)),
    *each(
        "key cache",
        "key_rounded",
        ("float16", "bfloat16", "int8", "q8_0"),
        ("k_post_rope",),
        ("numerics",),
        ("kv_precision",),
    ),
    _R(
        "heads untransposed",
        "untransposed",
        0,
        ("attention",),
        ("graph",),
        ("transposed", "rows_permuted", "token_scope"),
    ),
    _R("heads moved", "heads_moved", 0, ("attention",), ("graph",), ("rows_permuted",)),
    _R("head silent", "head_silent", 1, ("attention",), ("graph",), ("zeroed",)),
    _R("scores capped", "soft_capped", 0.5, ("attention",), ("graph",), ("unknown",)),
    *each(
        "rope_theta",
        "theta",
        (1000.0, 10500.0, 500000.0, 1e6, 12345.678),
        ("q_post_rope",),
        ("config",),
        ("rope_theta",),
    ),
    *each(
        "rope_position",
        "positions",
        (1, -1, 7, 0.5, "zero", "reversed", "double", "half", "quarter", "negative", "stuck", "repeated"),
        ("q_post_rope",),
        ("graph", "config"),
        ("rope_position", "rope_theta"),
    ),
    _R("rope_position only query", "only_query", 0, ("k_post_rope",), ("graph",), ("rope_position",)),
    _R("rope_position key shifted", "only_key_shifted", 0, ("k_post_rope",), ("graph",), ("rope_position",)),
    *each(
        "rotary tables",
        "tables",
        ("frequencies", "frequencies angles cosines", "cosines"),
        ("q_post_rope",),
        ("numerics",),
        ("dtype_truncated",),
    ),
    _R(
        "rotary tables of a bfloat16 run",
        "tables",
        "frequencies",
        ("q_post_rope",),
        ("numerics",),
        ("dtype_truncated",),
        dtype="bfloat16",
        count=60,
    ),
    *(
        _R(
            f"rope_theta and {what}",
            "two settings",
            f"theta {what}",
            ("q_post_rope",),
            ("config",),
            ("rope_theta",),
            further=(cause,),
        )
        for what, cause in (("type", "rope_type"), ("shift", "rope_position"), ("half", "rope_position"))
    ),
    _R("one token head", "one token lm_head", 0, ("lm_head",), ("graph",), ("zeroed",), once=True),
    *(
        _R(f"one token {path}", f"one token {path}", 0, (stage,), ("graph",), ("zeroed",))
        for path, stage in (("mlp.down_proj", "ffn_out"), ("self_attn.o_proj", "attn_out"))
    ),
    _R("overflow", "", 0, ("ffn_swigl",), ("numerics",), ("overflow",), dtype="float16", loud=True),
    _R("rope_type", "adjacent", 0, ("q_post_rope",), ("config",), ("rope_type",)),
    _R("rope partial", "partial", 0, ("q_post_rope",), ("config",), ("rope_type",)),
    *each("activation_function", "activation", _ACTS, ("ffn_silu",), ("graph",), ("activation_function",)),
    *each(
        "activation_function seen",
        "activation",
        ("gelu", "relu"),
        ("ffn_silu",),
        ("graph",),
        ("activation_function",),
        silu=True,
    ),
    _R("gate_up in forward", "gate_up_in_forward", 0, ("ffn_swigl",), ("graph", "weights"), ("gate_up_swapped",)),
    _R("gate_up modules", "gate_up_modules", 0, ("ffn_gate",), _W, ("gate_up_swapped",)),
    _R("no up", "no_up", 0, ("ffn_swigl",), ("graph",), ("unknown",)),
    _R("sum with up", "sum_with_up", 0, ("ffn_swigl",), ("graph",), ("unknown",)),
    _R("qk modules", "q_k_modules", 0, ("qkv_matmul",), _W, ("qk_swapped",), square=True),
    *each(
        "residual_missing",
        "residual",
        ("attention", "normed", "twice"),
        ("post_attn_residual",),
        ("graph",),
        ("residual_missing",),
    ),
    *each(
        "residual_missing",
        "residual",
        ("mlp", "skip", "mlp normed", "mlp twice", "branch"),
        ("post_ffn_residual",),
        ("graph",),
        ("residual_missing",),
    ),
    _R("residual minus", "residual", "minus", ("post_attn_residual",), ("graph",), ("sign_flipped",)),
    _R("residual mlp minus", "residual", "mlp minus", ("post_ffn_residual",), ("graph",), ("sign_flipped",)),
    _R("residual half", "residual", "half", ("post_attn_residual",), ("graph",), ("scaled",)),
    *each("eps all", "eps", (1e-6, 1e-3, 1e-2, 3e-4), ("attn_norm", "q_norm"), ("config",), ("rms_norm_eps",)),
    *each("eps ffn", "eps ffn_norm", (1e-3, 0.0), ("ffn_norm",), ("config",), ("rms_norm_eps",)),
    _R("eps final", "eps norm", 1e-2, ("final_norm",), ("config",), ("rms_norm_eps",), once=True),
    *each("norm attn", "norm input_layernorm", ("one_plus",), ("attn_norm",), ("weights", "graph"), ("norm_offset",)),
    *each(
        "norm ffn",
        "norm ffn_norm",
        ("one_plus",),
        ("ffn_norm",),
        ("weights", "graph"),
        ("norm_offset",),
    ),
    *each("norm other", "norm input_layernorm", ("plain", "none"), ("attn_norm",), ("graph",), ("norm_missing",)),
    *each("norm other", "norm input_layernorm", ("centred",), ("attn_norm",), ("graph",), ("unknown",)),
    _R("norm final", "norm norm", "one_plus", ("final_norm",), ("weights", "graph"), ("norm_offset",), once=True),
    _R("no biases", "no_biases", 0, ("qkv_bias",), _W, ("bias_missing",), biased=True),
    *(
        _R(f"bias zero {x}", f"bias zero {x}", 0, ("qkv_bias",), _W, ("bias_missing", "zeroed"), biased=True)
        for x in ("q", "k", "v", "qkv")
    ),
    *(
        _R(f"bias twice {x}", f"bias twice {x}", 0, ("qkv_bias",), _W, ("scaled", "bias_wrong"), biased=True)
        for x in "qkv"
    ),
    *(_R(f"bias minus {x}", f"bias minus {x}", 0, ("qkv_bias",), _W, ("sign_flipped",), biased=True) for x in "qkv"),
    *(_R(f"bias random {x}", f"bias random {x}", 0, ("qkv_bias",), _W, ("bias_wrong",), biased=True) for x in "qkv"),
    *each(
        "activations attn_out",
        "inputs o",
        _ROUNDINGS,
        ("attn_out", "attention"),
        ("numerics",),
        ("activation_quantization", "dtype_truncated"),
    ),
    *each("activations gate", "inputs gate_up", _ROUNDINGS, ("ffn_gate",), ("numerics",), ("activation_quantization",)),
    *each(
        "activations down",
        "inputs down",
        _ROUNDINGS,
        ("ffn_out", "ffn_swigl"),
        ("numerics",),
        ("activation_quantization", "dtype_truncated"),
    ),
    *each("activations qkv", "inputs qkv", _ROUNDINGS, ("qkv_matmul",), ("numerics",), ("activation_quantization",)),
    *each(
        "activations head",
        "inputs head",
        ("int8 token", "float16"),
        ("lm_head",),
        ("numerics",),
        ("activation_quantization",),
        once=True,
    ),
    *(
        _R(f"{cause} {path}", f"weight {kind} {path}", value, (_MATMUL[path],), _W, (cause, *others))
        for path in _MATMUL
        for kind, value, cause, others in (
            ("transposed", 0, "transposed", ()),
            ("scaled", 1.02, "scaled", ()),
            ("scaled", 2.0, "scaled", ()),
            ("negative", 0, "sign_flipped", ()),
            ("zero", 0, "zeroed", ()),
            ("scaled row", 1.5, "scaled", ("corrupted_blocks",)),
            ("shuffled", 0, "rows_permuted", ()),
            ("noise rows", 0, "corrupted_blocks", ()),
            ("rounded", "bfloat16", "dtype_truncated", ()),
            ("rounded", "float16", "dtype_truncated", ()),
            ("rounded", "int8 token", "requantized", ()),
            ("rounded", "int4 token", "requantized", ()),
            ("rounded", "float8_e4m3fn", "dtype_truncated", ("requantized",)),
        )
    ),
    *(
        _R(
            *(f"{cause} {x}_proj", f"weight {kind} self_attn.{x}_proj", 0, ("qkv_matmul",), _W, (cause,)),
            only=lambda c, kind=kind: "head" not in kind or c.num_key_value_heads > 1,
        )
        for x in "qk"
        for kind, cause in (
            ("adjacent", "permuted_rope"),
            ("halves", "permuted_rope"),
            ("heads rolled", "rows_permuted"),
            ("zero head", "zeroed"),
        )
    ),
    _R("zero head columns", "weight zero head columns self_attn.o_proj", 0, ("attn_out",), _W, ("zeroed",)),
    _R("scaled head columns", "weight scaled head columns self_attn.o_proj", 1.5, ("attn_out",), _W, ("scaled",)),
    *(
        _R(f"wrong_layer {p}", f"layer {p}", 1, (s,), _W, ("wrong_layer",))
        for p, s in (*list(_MATMUL.items())[:5:2], ("mlp.down_proj", "ffn_out"), ("input_layernorm", "attn_norm"))
        if f"layer {p}"
    ),
    _R("norm scaled", "weight scaled input_layernorm", 1.1, ("attn_norm",), _W, ("scaled",)),
    _R("norm zero", "weight zero ffn_norm", 0, ("ffn_norm",), _W, ("zeroed",)),
    _R("norm offset", "weight offset ffn_norm", 1.0, ("ffn_norm",), _W, ("norm_offset",)),
    _R("norm shuffled", "weight shuffled input_layernorm", 0, ("attn_norm",), _W, ("rows_permuted", "unknown")),
    _R("tied_embedding", "tied", 0, ("lm_head",), ("weights", "config"), ("tied_embedding",), once=True, untied=True),
    _R("head scaled", "head_scaled", 0.5, ("lm_head",), ("weights", "graph"), ("scaled",), once=True),
    _R("head capped", "head_capped", 0.7, ("lm_head",), ("graph", "weights"), ("unknown",), once=True),
    _R("head rows", "weight shuffled lm_head", 0, ("lm_head",), _W, ("rows_permuted",), once=True, untied=True),
    _R("embedding scaled", "embedding_scaled", 0, ("embedding",), ("graph", "weights"), ("scaled",), once=True),
    _R(
        "embedding shuffled",
        "weight shuffled embed_tokens",
        0,
        ("embedding",),
        ("graph", "weights"),
        ("token_scope", "rows_permuted"),
        once=True,
        untied=True,
    ),
    _R(
        "embedding negative",
        "weight negative embed_tokens",
        0,
        ("embedding",),
        _W,
        ("sign_flipped",),
        once=True,
        untied=True,
    ),
    _R(
        "tokens +1",
        "other_tokens",
        0,
        ("embedding",),
        ("graph", "weights"),
        ("token_scope", "rows_permuted"),
        once=True,
    ),
    _R("tokens turned", "turned_tokens", 0, ("embedding",), ("graph",), ("token_scope",), once=True),
)
