"""What the nodes of a ggml graph are called, and which stage of the forward each is, or which part of one."""

from store.traces import llama_experts, llama_gemma4, llama_recurrent

_LAST_OF_NORM = ("MUL", "ADD", "NORM")  # with a weight, with a bias, and with neither

# (name without its layer, operation) -> stage, or the part of one.
MEANING: dict[tuple[str, str], str] = {
    ("embd", "GET_ROWS"): "embedding",
    ("inp_embd", "GET_ROWS"): "embedding",
    ("embd", "SCALE"): "embedding",  # by a factor of the configuration; the rows themselves have no name then
    **{(name, "SCALE"): "embedding.scaled" for name in ("inp_scaled", "inp_embd_scaled")},
    **{(f"{norm}_norm", op): f"{norm}_norm" for norm in ("attn", "ffn") for op in _LAST_OF_NORM},
    **{(f"{letter.upper()}cur", "MUL_MAT"): f"matmul.{letter}" for letter in "qkv"},
    **{(f"{letter.upper()}cur", "ADD"): f"bias.{letter}" for letter in "qkv"},
    **{(f"{letter.upper()}cur", "MUL"): f"matmul.{letter}" for letter in "qkv"},  # times a stored factor
    **{("wqkv", op): "qkv_matmul" for op in ("MUL_MAT", "MUL")},
    ("wqkv_b", "ADD"): "qkv_bias",
    **{(f"{letter.upper()}cur_clamped", "CLAMP"): f"clip.{letter}" for letter in "qkv"},
    ("wqkv_clamped", "CLAMP"): "qkv_clip",
    ("Qcur_normed", "RMS_NORM"): "q_rope_norm",  # behind the rotation, without a weight
    ("Kcur_normed", "RMS_NORM"): "k_rope_norm",
    ("Qcur_normed", "MUL"): "q_norm",
    ("Kcur_normed", "MUL"): "k_norm",
    ("Vcur_normed", "RMS_NORM"): "v_norm",  # as in gemma4, which also gives what it rotates names of their own
    ("Qcur_pos", "ROPE"): "q_post_rope",
    ("Kcur_pos", "ROPE"): "k_post_rope",
    ("l_out", "MUL"): "layer_output",  # times a number of the layer; the sum before has no name
    ("h_nextn", "MUL"): "final_norm",
    **llama_recurrent.MEANING,
    ("Qcur_norm", "MUL"): "q_rope_norm",
    ("Kcur_norm", "MUL"): "k_rope_norm",
    **{(name, "ROPE"): "q_post_rope" for name in ("Qcur", "Qcur_rope", "Qcur-post-rope")},
    **{(name, "ROPE"): "k_post_rope" for name in ("Kcur", "Kcur_rope", "Kcur-post-rope")},
    ("Qcur_attn_temp_scaled", "MUL"): "q_tempered",
    ("q", "MUL"): "q_a_norm",
    ("kv_cmpr", "MUL"): "kv_a_norm",
    ("q_pe", "ROPE"): "q_post_rope",
    ("k_pe", "ROPE"): "k_post_rope",
    ("q_nope_absorbed", "MUL_MAT"): "q_absorbed",
    ("Qcur", "CONCAT"): "q_latent",
    ("Kcur", "CONCAT"): "k_latent",
    ("kqv", "MUL_MAT"): "latent_attention",
    ("kqv_mla", "MUL_MAT"): "attention.of_latents",
    ("fattn_mla", "MUL_MAT"): "attention.of_flash",
    ("kqv_out", "CONT"): "attention",
    ("attn_out", "CONT"): "attention",  # of afmoe, whose gate and output projection follow
    ("attn_gate_proj", "MUL_MAT"): "attn_gate",
    ("attn_gated", "MUL"): "attn_gated",
    ("attn_o_proj", "MUL_MAT"): "attn_out",
    ("attn_o_proj", "MUL"): "attn_out.scaled",
    ("attn_out", "MUL_MAT"): "attn_out",
    ("attn_out", "ADD"): "attn_out.biased",
    ("attn_out", "MUL"): "attn_out.scaled",
    ("attn_out_norm", "MUL"): "ffn_norm",  # of dbrx
    **{(name, "MUL"): "post_attn_norm" for name in ("attn_post_norm", "post_attn_norm")},
    ("ffn_inp", "ADD"): "post_attn_residual",
    ("ffn_inp", "GET_ROWS"): "post_attn_residual",  # of falcon-h1, which drops rows behind it and not before
    ("sa_out", "ADD"): "post_attn_residual",
    ("ffn_gate", "MUL_MAT"): "ffn_gate",
    ("ffn_up", "MUL_MAT"): "ffn_up",
    **{(f"ffn_{part}_b", "ADD"): f"ffn_{part}.biased" for part in ("gate", "up")},
    **{(f"ffn_{part}_s", "MUL"): f"ffn_{part}.scaled" for part in ("gate", "up")},
    ("ffn_silu", "UNARY"): "ffn_silu",
    ("ffn_silu", "SILU"): "ffn_silu",
    **{("ffn_gelu", op): "ffn_silu" for op in ("UNARY", "GELU")},
    ("ffn_sqr(relu)", "SQR"): "ffn_silu",
    ("ffn_gate_par", "MUL"): "ffn_swigl",
    ("ffn_swiglu", "SWIGLU"): "ffn_swigl",
    ("ffn_geglu", "GEGLU"): "ffn_swigl",
    **{("ffn_out", op): "ffn_out" for op in ("MUL_MAT", "ADD", "MUL")},  # with a bias or a factor: the last of them
    **{(name, "MUL"): "post_ffn_norm" for name in ("ffn_post_norm", "post_mlp_norm")},
    ("l_out", "ADD"): "post_ffn_residual",
    **{("result_norm", op): "final_norm" for op in _LAST_OF_NORM},
    **llama_experts.MEANING,
    **llama_gemma4.MEANING,
    **{("result_output", op): "lm_head" for op in ("MUL_MAT", "ADD", "SCALE")},  # the last of them
}
