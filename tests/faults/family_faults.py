"""Mistakes of a runtime in what only some families have: windows, norms of heads and behind blocks, scales."""

from collections.abc import Callable

from kernels.config import FULL, SLIDING, ModelConfig
from tests.faults.runtime_fault import RuntimeFault, each

_R = RuntimeFault
_GEMMA = ("gemma3",)
_HEAD_NORMS = ("qwen3", "gemma3")
_WINDOWS = ("qwen3", "gemma3", "mistral")
_LONG = 60  # tokens of which every window hides some
_ANY = 1 << 20  # a window that hides none
_W = ("weights",)
_SETTING = ("graph", "config")
_BEHIND = {"attn": "post_attention_layernorm", "ffn": "post_feedforward_layernorm"}


def _window(of: ModelConfig) -> int:
    assert of.sliding_window is not None
    return of.sliding_window


def _slides(of: ModelConfig) -> bool:
    return of.sliding_window is not None


def _masked(kind, value, sliding=True) -> RuntimeFault:
    stages, causes = ("attention",), ("causal_mask",)
    more = {"families": _WINDOWS, "sliding": sliding, "only": _slides, "count": _LONG}
    return _R(f"window {kind}", "mask", value, stages, _SETTING, causes, **more)


def _rotated(kind, edit, value, sliding, causes=("rope_theta",), only=lambda c: True) -> RuntimeFault:
    more = {"families": _GEMMA, "sliding": sliding, "only": only}
    return _R(f"rotation {kind}", edit, value, ("q_post_rope",), _SETTING, causes, **more)


def _stretched(of: ModelConfig) -> bool:
    return of.rope_factors is not None


def _scored(kind: str, size: Callable[[ModelConfig], int]) -> RuntimeFault:
    """Scores divided by the root of another number than the model's."""

    def factor(of: ModelConfig) -> float:
        return size(of) ** -0.5 / (of.attention_scale or of.head_dim**-0.5)

    more = {"families": _GEMMA, "only": lambda c: abs(factor(c) - 1) > 1e-6}
    causes = ("attention_scale",)
    return _R(f"query_pre_attn_scalar {kind}", "attention_scale", factor, ("attention",), ("graph",), causes, **more)


def _of_norm(name: str, path: str, stage: str, families: tuple[str, ...], **more) -> tuple[RuntimeFault, ...]:
    """What may go wrong with a norm: left out, its weight not applied, 1 too much or too little of it."""
    weights = ("weights", "graph")
    return (
        _R(
            f"{name} left out",
            f"norm {path}",
            "none",
            (stage,),
            ("graph",),
            ("norm_missing",),
            families=families,
            **more,
        ),
        _R(
            f"{name} plain", f"norm {path}", "plain", (stage,), ("graph",), ("norm_missing",), families=families, **more
        ),
        *(
            _R(f"{name} {v}", f"norm {path}", v, (stage,), weights, ("norm_offset",), families=families, **more)
            for v in ("one_plus", "less_one")
        ),
    )


def _exchanged(name: str, stage: str, families: tuple[str, ...] = _GEMMA) -> RuntimeFault:
    return _R(
        f"norms exchanged {name}", f"norms exchanged {name}", 0, (stage,), _W, ("wrong_layer",), families=families
    )


FAMILY_FAULTS: tuple[RuntimeFault, ...] = (
    _masked("one less", lambda c: _window(c) - 1),
    _masked("one more", lambda c: _window(c) + 1),
    _masked("half", lambda c: max(_window(c) // 2, 1)),
    _masked("double", lambda c: 2 * _window(c)),
    _masked("none", _ANY),
    _masked("everywhere", _window, sliding=False),
    _rotated("global in local layers", "rotation of other layers", FULL, True),
    _rotated("local in global layers", "rotation of other layers", SLIDING, False),
    _rotated("base of global in local layers", "theta", lambda c: c.rope_theta, True),
    _rotated("unscaled in global layers", "stretched", 1 / 8, False, only=_stretched),
    _rotated("scaled twice in global layers", "stretched", 8.0, False, ("rope_theta", "rope_position"), _stretched),
    _rotated("scaled in local layers", "stretched", 8.0, True, ("rope_theta", "rope_position")),
    _R("layer types exchanged", "layer types", 0, ("q_post_rope",), _SETTING, ("rope_theta",), once=True,
       families=_GEMMA, further=("causal_mask",), count=_LONG),
    *_of_norm("q_norm", "self_attn.q_norm", "q_norm", _HEAD_NORMS),
    *_of_norm("k_norm", "self_attn.k_norm", "k_norm", _HEAD_NORMS),
    *(
        _R(f"{x}_norm together", f"heads together {x}", 0, (f"{x}_norm",), ("graph",), ("head_grouping",),
           families=_HEAD_NORMS, only=lambda c: c.num_key_value_heads > 1)
        for x in "qk"
    ),
    *each("q_norm eps", "eps self_attn.q_norm", (1e-2, 1e-3), ("q_norm",), ("config",), ("rms_norm_eps",),
          families=_HEAD_NORMS),
    _exchanged("q k", "q_norm", families=_HEAD_NORMS),
    *_of_norm("norm", "input_layernorm", "attn_norm", _GEMMA),
    *_of_norm("ffn_norm", "ffn_norm", "ffn_norm", _GEMMA),
    *(fault for x, path in _BEHIND.items() for fault in _of_norm(f"post_{x}_norm", path, f"post_{x}_norm", _GEMMA)),
    *_of_norm("final_norm", "norm", "final_norm", _GEMMA, once=True),
    _exchanged("behind", "post_attn_norm"),
    _exchanged("around", "post_attn_norm"),
    _R("embedding scale missing", "embedding scale", "missing", ("embedding",), ("graph", "weights"), ("scaled",),
       once=True, families=_GEMMA),
    _R("embedding scale in bfloat16", "embedding scale", "bfloat16", ("embedding",), ("graph", "weights"), ("scaled",),
       once=True, families=_GEMMA, only=lambda c: c.hidden_size**0.5 % 1 > 0),
    *each("embedding times", "embedding_scaled", (0, 2.0), ("embedding",), ("graph", "weights"), ("scaled",),
          once=True, families=_GEMMA),
    _scored("is head_dim", lambda c: c.head_dim),
    _scored("is a share of hidden", lambda c: c.hidden_size // c.num_attention_heads),
    _scored("is hidden", lambda c: c.hidden_size),
    _scored("is 256", lambda c: 256),
    *each("GELU", "activation", ("gelu", "silu", "quick_gelu"), ("ffn_silu",), ("graph",), ("activation_function",),
          families=_GEMMA, silu=True),
)  # fmt: skip
