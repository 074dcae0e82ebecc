"""deepseek2 (DeepSeek V2): latent attention, experts behind the first layers, and a part beside them for every token.

Keys and values of all heads are made of one latent and one rotated part. As llama.cpp does, what makes keys of the
latent is multiplied into the queries, so that every head attends to the latents themselves, and what makes values of
them is multiplied behind attention; transformers makes keys and values first, which gives the same.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED, OF_TRAINING, USED
from kernels.experts import ExpertParts
from kernels.family import Has, Keys, Settings, Tensor
from kernels.graph import LAYER_INPUT, Heads, Stage
from kernels.kinds.apart import HeadProduct
from kernels.kinds.attention import Attention
from kernels.kinds.elementwise import Joined
from kernels.kinds.norm import RmsNorm
from kernels.kinds.product import Product
from kernels.kinds.rotate import Rotate, Rotation, yarn_magnitude
from kernels.models.llama import Decoder, decoder_stages
from kernels.stages import Site

_OF_QUERIES = ("q_a", "q_a_norm")  # where these are made of a latent too
_LATENT = (
    *(*_OF_QUERIES, "q_matmul", "kv_a", "kv_a_norm", "q_absorbed", "q_latent", "k_latent", "q_tempered"),
    "latent_attention",
)
INNER, COUNT, DENSE, BESIDE = (
    "moe_intermediate_size",
    "n_routed_experts",
    "first_k_dense_replace",
    "n_shared_experts",
)
SIZES = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
OF_CHOICE = (COUNT, USED, INNER, DENSE, BESIDE, "n_group", "topk_group", "routed_scaling_factor")
# Those that move training, or how experts are spread over machines.
UNUSED = (*OF_TRAINING, "aux_loss_alpha", "seq_aux", "ep_size", "qk_head_dim", "num_nextn_predict_layers", "num_mtp_*")
_EPS = 1e-6  # of the norms of latents in transformers, whatever a file says of the others
_ROPE = ("rope_scaling", "rope_parameters")
_OF_GGUF = ("expert_feed_forward_length", "expert_shared_count", "leading_dense_block_count", "expert_weights_scale")
_LENGTHS = ("key_length_mla", "value_length_mla", "kv_lora_rank", "q_lora_rank", "temperature_scale")
_MULTIPLIER = "rope.scaling.yarn_log_multiplier"


class DeepseekV2(Decoder):
    """Defaults of DeepseekV2Config in transformers 5.24; models/deepseek2.cpp in llama-cpp-python 0.3.36."""

    latent: ClassVar[bool] = True
    stages = decoder_stages(*_LATENT, *experts.NAMES, without=("qkv_matmul", "qkv_bias"))
    expert_parts = ExpertParts(selection=True)
    not_loaded: ClassVar[tuple[str, ...]] = (experts.SELECTION,)
    scaled = ("self_attn.o_proj",)
    pairs = "norm"
    model_types: ClassVar[tuple[str, ...]] = ("deepseek_v2",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32},
            **{"num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
            **{"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64},
            **{"v_head_dim": 128, COUNT: 64, DENSE: 0, BESIDE: 2, INNER: 1407, "routed_scaling_factor": 1.0},
            "topk_method": "greedy",
        }
    )
    gguf: ClassVar[str | None] = "deepseek2"
    gguf_modules = MappingProxyType(
        {
            "attn_q_a": "self_attn.q_a_proj",
            "attn_q_a_norm": "self_attn.q_a_layernorm",
            "attn_q_b": "self_attn.q_b_proj",
            "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
            "attn_kv_a_norm": "self_attn.kv_a_layernorm",
            "attn_kv_b": "self_attn.kv_b_proj",
            "attn_k_b": "self_attn.k_b_proj",
            "attn_v_b": "self_attn.v_b_proj",
        }
    )
    after_head = MappingProxyType({})
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset((*SIZES, *OF_CHOICE, "topk_method", "attention_bias", "mlp_bias")),
                ignored={"scoring_func": ("softmax",), "norm_topk_prob": (False,), "moe_layer_freq": (1,)},
                irrelevant=UNUSED,
            ),
            "gguf": Keys(
                used=GGUF_USED
                | {*_OF_GGUF, "expert_weights_norm", "expert_gating_func", "attention.temperature_length", _MULTIPLIER}
                | {f"attention.{key}" for key in _LENGTHS},
                ignored=GGUF_OTHERS,
            ),
        }
    )

    def stages_of(self, config: ModelConfig) -> tuple[str, ...]:
        absent = () if config.q_lora_rank else _OF_QUERIES
        return tuple(name for name in super().stages_of(config) if name not in absent)

    def of_attention(self, config: ModelConfig, layer: int) -> Iterator[Tensor]:
        c, name, turned = config, f"model.layers.{layer}.".__add__, config.rotary_dim or 0
        still, size = c.head_dim - turned, c.v_head_dim or c.head_dim
        if c.q_lora_rank:
            yield Tensor(name("self_attn.q_a_proj.weight"), (c.q_lora_rank, c.hidden_size))
            yield Tensor(name("self_attn.q_a_layernorm.weight"), (c.q_lora_rank,))
            yield Tensor(name("self_attn.q_b_proj.weight"), (c.q_size, c.q_lora_rank))
        else:
            yield Tensor(name("self_attn.q_proj.weight"), (c.q_size, c.hidden_size))
        yield Tensor(name("self_attn.kv_a_proj_with_mqa.weight"), (c.kv_lora_rank + turned, c.hidden_size))
        yield Tensor(name("self_attn.kv_a_layernorm.weight"), (c.kv_lora_rank,))
        for head in range(c.num_attention_heads):
            yield Tensor(name(f"self_attn.k_b_proj.{head}.weight"), (c.kv_lora_rank, still))
        for head in range(c.num_attention_heads):
            yield Tensor(name(f"self_attn.v_b_proj.{head}.weight"), (size, c.kv_lora_rank))
        yield Tensor(name("self_attn.o_proj.weight"), (c.hidden_size, c.num_attention_heads * size))

    def attention(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        c, count, size = config, config.num_attention_heads, config.v_head_dim or config.head_dim
        latent, both = c.kv_lora_rank, c.kv_lora_rank + (c.rotary_dim or 0)
        yield from self._made(config, layer)
        still, used = c.head_dim - (c.rotary_dim or 0), _of_heads(c, layer, "k_b_proj")
        product = HeadProduct(count, still, strided=True)
        heads = _heads(count, latent)
        yield Stage(Site(layer, "q_absorbed"), product, count * latent, ("q_matmul",), used, heads)
        q, joined = "q_latent", _heads(count, both)
        yield Stage(Site(layer, q), Joined(count), count * both, ("q_absorbed", "q_post_rope"), (), joined)
        yield Stage(Site(layer, "k_latent"), Joined(1), both, ("kv_a_norm", "k_post_rope"))
        if (tempered := self.temperature(c, layer)) is not None:
            yield Stage(Site(layer, "q_tempered"), tempered, count * both, (q,), (), joined)
            q = "q_tempered"
        attend = Attention(*(count, 1, both, c.attention_scale or c.head_dim**-0.5, 0, c.causal), value_dim=latent)
        read = (q, "k_latent", "k_latent")
        yield Stage(Site(layer, "latent_attention"), attend, count * latent, read, (), heads)
        product, used = HeadProduct(count, latent), _of_heads(c, layer, "v_b_proj")
        heads = _heads(count, size)
        yield Stage(Site(layer, "attention"), product, count * size, ("latent_attention",), used, heads)
        used = self._used(layer, "self_attn.o_proj", has)
        yield Stage(Site(layer, "attn_out"), Product(), c.hidden_size, ("attention",), used)

    def _made(self, c: ModelConfig, layer: int) -> Iterator[Stage]:
        """Queries and latents, normed, and the parts of both that rotate."""
        count, turned, latent = c.num_attention_heads, c.rotary_dim or 0, c.kv_lora_rank

        def of(module: str) -> tuple[str, ...]:
            return (f"model.layers.{layer}.self_attn.{module}.weight",)

        eps = c.latent_eps or c.rms_norm_eps
        yield self._norm(c, layer, "attn_norm", "input_layernorm", LAYER_INPUT)
        x, made = "attn_norm", "q_proj"
        if c.q_lora_rank:
            yield Stage(Site(layer, "q_a"), Product(), c.q_lora_rank, (x,), of("q_a_proj"))
            yield Stage(Site(layer, "q_a_norm"), RmsNorm(eps), c.q_lora_rank, ("q_a",), of("q_a_layernorm"))
            x, made = "q_a_norm", "q_b_proj"
        yield Stage(Site(layer, "q_matmul"), Product(), c.q_size, (x,), of(made), _heads(count, c.head_dim))
        yield Stage(Site(layer, "kv_a"), Product(), latent + turned, ("attn_norm",), of("kv_a_proj_with_mqa"))
        norm = RmsNorm(eps, size=latent)
        yield Stage(Site(layer, "kv_a_norm"), norm, latent, ("kv_a",), of("kv_a_layernorm"))
        stretched = c.rope_factors, c.rope_attention_factor
        rotation = Rotation(turned, c.rope_theta, c.rope_type, *stretched, ramp=c.rope_ramp)
        turn, heads = Rotate(rotation, 0, c.q_size, c.head_dim), _heads(count, turned)
        yield Stage(Site(layer, "q_post_rope"), turn, count * turned, ("q_matmul",), (), heads)
        turn, heads = Rotate(rotation, latent, turned), _heads(1, turned)
        yield Stage(Site(layer, "k_post_rope"), turn, turned, ("kv_a",), (), heads)

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        method = fields.text("topk_method")
        if method not in ("greedy", "group_limited_greedy"):
            raise fields.unsupported(f"gives topk_method as {method}; supported are greedy and group_limited_greedy.")
        grouped = method != "greedy"
        return self._of_both(
            *(config, fields),
            norm_topk_prob=False,
            n_group=needed(fields, "n_group") if grouped else 1,
            topk_group=needed(fields, "topk_group") if grouped else 1,
            group_best=1 if grouped else 2,
        )

    def _of_both(self, config: ModelConfig, fields: Settings, **more: Any) -> ModelConfig:  # noqa: ANN401
        """What V2 and V3 say alike."""
        for key in ("attention_bias", "mlp_bias"):
            if fields.flag(key):
                raise fields.unsupported(f"sets {key}, which this program does not compute in {config.architecture}.")
        if config.num_key_value_heads != config.num_attention_heads:
            raise fields.unsupported(
                f"has {config.num_key_value_heads} key/value heads for {config.num_attention_heads}; supported are as "
                "many."
            )
        config = replace(
            config,
            kv_lora_rank=needed(fields, "kv_lora_rank"),
            q_lora_rank=fields.integer("q_lora_rank"),
            v_head_dim=needed(fields, "v_head_dim"),
            latent_eps=None if config.rms_norm_eps == _EPS else _EPS,
        )
        rope = fields.within(*_ROPE)
        if (rope.text("rope_type", "type") or "default") != "default" and rope.find("mscale_all_dim")[1]:
            magnitude = yarn_magnitude(rope.number("factor") or 1.0, rope.number("mscale_all_dim") or 0.0)
            config = _scaled(config, magnitude**2)
        dense = fields.integer(DENSE, low=0) or 0
        return expert_settings.of_hugging_face(
            *(config, fields, INNER, (COUNT,)),
            routed_scaling_factor=fields.number("routed_scaling_factor") or 1.0,
            expert_layers=tuple(layer >= dense for layer in range(config.num_hidden_layers)),
            shared_intermediate_size=needed(fields, INNER) * needed(fields, BESIDE),
            **more,
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        c, turned = config, config.rotary_dim or 0
        return {
            **{"kv_lora_rank": c.kv_lora_rank, "q_lora_rank": c.q_lora_rank, "v_head_dim": c.v_head_dim},
            **{"qk_nope_head_dim": c.head_dim - turned, "qk_rope_head_dim": turned},
            **{COUNT: c.num_experts, USED: c.num_experts_per_tok, INNER: c.moe_intermediate_size},
            DENSE: len(expert_settings.dense_layers(c)),
            BESIDE: c.shared_intermediate_size // max(c.moe_intermediate_size, 1),
            **{"n_group": c.n_group, "topk_group": c.topk_group, "routed_scaling_factor": c.routed_scaling_factor},
            "topk_method": "greedy" if c.n_group == 1 else "group_limited_greedy",
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        config = replace(
            config,
            kv_lora_rank=needed(fields, "attention.kv_lora_rank"),
            q_lora_rank=_gguf_queries(config, fields),
            v_head_dim=fields.integer("attention.value_length_mla", low=0) or needed(fields, "attention.value_length"),
        )
        config = _gguf_scores(config, fields)
        if fields.find("attention.temperature_scale")[1]:
            beta, length = fields.single("attention.temperature_scale"), needed(fields, "attention.temperature_length")
            config = replace(config, temperature=beta, temperature_length=length)
        glm = config.num_hidden_layers in (47, 48) and config.vocab_size == 154880  # of which files do not say it
        inner = expert_settings.gguf_inner(config, fields)
        return expert_settings.of_gguf(
            *(config, fields, inner),
            **expert_settings.gguf_weights(fields),
            expert_scoring=expert_settings.gguf_scoring(fields, "sigmoid" if glm else "softmax"),
            expert_layers=expert_settings.gguf_leading(config, fields),
            shared_intermediate_size=inner * (fields.integer("expert_shared_count", low=0) or 0),
        )

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.num_experts and not config.shared_intermediate_size:
            yield f"it has nothing beside its experts, which {self.gguf} has"


def _heads(count: int, channels: int) -> Heads:
    return Heads(channels, (("", count * channels),))


def _of_heads(config: ModelConfig, layer: int, module: str) -> tuple[str, ...]:
    """The tensors of every head."""
    return tuple(f"model.layers.{layer}.self_attn.{module}.{head}.weight" for head in range(config.num_attention_heads))


def needed(fields: Settings, key: str) -> int:
    """A whole number that must be there."""
    found = fields.integer(key)
    if found is None:
        raise fields.wrong(f"does not say {fields.find(key)[0]}; add it, it is needed and cannot be guessed.")
    return found


def _gguf_queries(config: ModelConfig, fields: Settings) -> int | None:
    """Channels of what queries are made of; None in models of some numbers of layers, whatever their files say."""
    if config.num_hidden_layers in (26, 27) or (config.num_hidden_layers == 48 and config.vocab_size == 128256):
        return None
    key, rank = fields.find("attention.q_lora_rank")[0], fields.integer("attention.q_lora_rank", low=0)
    if rank is None:
        raise fields.wrong(
            f"does not say {key}, which llama.cpp asks for unless a model has 26 or 27 layers; add it, 0 for none."
        )
    return rank or None


def _gguf_scores(config: ModelConfig, fields: Settings) -> ModelConfig:
    """The configuration with scores, and what is rotated, scaled as llama.cpp does.

    The multiplier is 0.1 times that of transformers, takes the magnitude away from what is rotated, and goes into the
    scores; these get the square of 1 + 0.1 log(factor) where the rotation is stretched in another way, too.
    """
    kind = fields.text("rope.scaling.type") or "linear"
    said = fields.find("rope.scaling.factor", "rope.scale_linear")[1]
    factor = fields.single("rope.scaling.factor", "rope.scale_linear") if said and kind != "none" else None
    stretch = math.log(factor or 1.0)
    multiplier = fields.single(_MULTIPLIER) if fields.find(_MULTIPLIER)[1] else None
    magnitude = fields.single("rope.scaling.attn_factor") or 1.0
    if kind == "yarn" and multiplier is not None:
        config = replace(config, rope_attention_factor=magnitude)
    elif kind == "yarn":
        magnitude *= yarn_magnitude(factor or 1.0)
    else:
        magnitude *= 1 + 0.1 * stretch
    score = magnitude * (1 + (multiplier or 0.0) * stretch)
    return _scaled(config, score**2)


def _scaled(config: ModelConfig, times: float) -> ModelConfig:
    """The configuration with scores that many times the usual ones, if that is not 1 to single precision."""
    usual = abs(times - 1) <= 2.0**-23
    return replace(config, attention_scale=None if usual else config.head_dim**-0.5 * times)


FAMILY = DeepseekV2()
