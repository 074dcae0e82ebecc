"""What a forward needs to know about a model beside its tensors, in Hugging Face's terms."""

from dataclasses import dataclass, replace
from typing import Any, Literal

RopeType = Literal["neox", "norm"]
Scoring = Literal["softmax", "sigmoid", "softmax of chosen", "sigmoid of chosen"]
_FLOAT32 = 2.0**-23  # some formats store settings in single precision
SLIDING, FULL, CHUNKED = "sliding_attention", "full_attention", "chunked_attention"


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The shape of what layers compute in place of attention from what they keep of the tokens before.

    kernel : tokens that a convolution reaches, its own included. heads, head_dim : of the values. groups, state : heads
    that several of those share, and the channels of one, by which the kept state is written and read. norm_eps :
    epsilon of the norms that are no tensors.
    """

    kernel: int
    heads: int = 0
    head_dim: int = 0
    groups: int = 0
    state: int = 0
    norm_eps: float = 1e-6

    @property
    def values(self) -> int:
        """Channels of all values."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Channels of what they are written by, and of what they are read by."""
        return self.groups * self.state

    @property
    def convolved(self) -> int:
        """Channels that go through the convolution."""
        return self.values + 2 * self.keys


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Hyper-parameters of a decoder.

    rms_norm_eps
        Epsilon of the norms, of whatever kind they are.
    rope_type
        Which channels of a head rotate together *in the canonical row order* (Hugging Face's): "neox" pairs
        i with i + head_dim/2 (rotate_half), or + rotary_dim/2, "norm" pairs 2i with 2i+1. The q/k rows of llama GGUF
        files are stored for "norm"; the canonical view reorders them, so such a file has rope_type "neox" here.
    rotary_dim
        How many channels of each head rotate, from its first on, or the last ones where attention is latent; the others
        are handed on. None for all.
    rope_factors
        Divisors of the rotary frequencies, one for each pair that rotates (linear, llama3, YaRN or LongRoPE scaling);
        None for none.
    rope_ramp
        What YaRN's divisors were made of: factor, first pair that it stretches, and pairs from there to the first that
        it stretches by all of it; None where the divisors came otherwise.
    rope_long_factors
        The divisors that stand in their place beyond `length_limit` (LongRoPE); None for none. See `for_length`.
    rope_attention_factor
        What rotated queries and keys are multiplied by (YaRN and LongRoPE), 1 for nothing.
    causal
        Whether a token attends to itself and those before it only, and not to all.
    sliding_window, layer_types
        How many tokens, itself included, a token attends to at most in layers of the type "sliding_attention"; those
        are all layers where there are no types. None for all tokens in every layer.
    attention_chunk
        Tokens of a chunk, before whose beginning a token sees nothing in layers of the type "chunked_attention"; None
        for no chunks.
    rope_local_theta
        Rotary base of sliding layers, which then have no divisors and no attention factor; None for that of all layers.
    kv_lora_rank, q_lora_rank, v_head_dim
        Latent attention: channels of what keys and values are made of, and of what queries are made of (None for the
        input itself); channels of a head of v. head_dim is that of q and k. 0 for attention that is not latent.
    full_head_dim, full_kv_heads
        Channels of a head, and heads of keys, in layers without a window where others are in layers that have one; None
        for one kind of heads in all. See `of_layer`.
    shared_kv_layers
        How many of the last layers have no keys and values of their own, but take those of the last layer before them
        that has its own and is of the same type.
    intermediate_sizes
        Channels of the feed-forward block, layer by layer; None where they are intermediate_size in all.
    layer_embedding_size
        Channels of the embedding of its own that every layer has of a token; 0 where layers have none.
    keys_as_values
        Whether such layers have no values of their own, but take the keys before they are normed and rotated.
    latent_eps
        Epsilon of the norms of latents; None for that of the others.
    rotated_layers
        Whether q and k are rotated, layer by layer; None where they are in all.
    attention_scale
        What scores are multiplied by; None for 1/sqrt(head_dim).
    temperature, temperature_length
        Queries are multiplied by 1 + temperature * log(1 + floor(position / temperature_length)), where a family counts
        positions from 1 by one more, in layers that it says; None for no such factor.
    clip_qkv
        What q, k and v are cut off at before they are rotated, on both sides of zero; None for no such bound.
    attention_cap, logits_cap
        What scores, and logits, are bent to stay below: cap * tanh(x / cap); None for no such bound.
    parallel
        Whether attention and the feed-forward block both read what the layer is given, and are added to it at once.
    activation
        The activation of a family that has several, by transformers' name; None for that of the family.
    embedding_scale, residual_scale, logits_scale
        What embeddings, the outputs of both blocks and logits are multiplied by (1 for nothing); a family may have a
        factor for its embeddings that stands in no configuration.
    num_experts, num_experts_per_tok
        How many experts a feed-forward block has, and of them are chosen for a token; 0 where it has none.
    expert_layers
        Which layers have experts; None where all do.
    moe_intermediate_size, shared_intermediate_size
        Channels inside of an expert, and of what is computed beside them for every token; 0 for nothing beside.
    expert_scoring, norm_topk_prob, routed_scaling_factor
        What makes weights of the router's logits, "… of chosen" of those that are chosen by them only; whether the
        weights of a token are divided by their sum, and what they are multiplied by then.
    swiglu_alpha, swiglu_limit
        The factor within the sigmoid of a gate, and the bound of gates, above, and of what they let through, on both
        sides; None for no bound.
    n_group, topk_group
        Groups of experts, of which so many are looked at for a token: those whose best come first.
    group_best
        So many of the best experts of a group are added up for that.
    recurrence, recurrent_layers
        What some layers compute in place of attention, and which of them; None where none does.
    normed_heads
        Whether q and k are normed, in families where some models have such norms and some have none.
    length_limit, length_limit_key
        Up to how many tokens these settings hold, and the file's name for the setting that changes the computation
        beyond (another rotary scaling for long texts); None if they hold for any number.
    """

    architecture: str
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_type: RopeType
    tie_word_embeddings: bool
    max_position_embeddings: int | None = None
    rotary_dim: int | None = None
    rope_factors: tuple[float, ...] | None = None
    rope_long_factors: tuple[float, ...] | None = None
    rope_attention_factor: float = 1.0
    rope_ramp: tuple[float, ...] | None = None
    causal: bool = True
    sliding_window: int | None = None
    layer_types: tuple[str, ...] | None = None
    attention_chunk: int | None = None
    rope_local_theta: float | None = None
    kv_lora_rank: int = 0
    q_lora_rank: int | None = None
    v_head_dim: int | None = None
    latent_eps: float | None = None
    full_head_dim: int | None = None
    full_kv_heads: int | None = None
    keys_as_values: bool = False
    shared_kv_layers: int = 0
    intermediate_sizes: tuple[int, ...] | None = None
    layer_embedding_size: int = 0
    rotated_layers: tuple[bool, ...] | None = None
    normed_heads: bool = True
    attention_scale: float | None = None
    temperature: float | None = None
    temperature_length: int | None = None
    clip_qkv: float | None = None
    attention_cap: float | None = None
    logits_cap: float | None = None
    parallel: bool = False
    activation: str | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logits_scale: float = 1.0
    num_experts: int = 0
    num_experts_per_tok: int = 0
    expert_layers: tuple[bool, ...] | None = None
    moe_intermediate_size: int = 0
    shared_intermediate_size: int = 0
    expert_scoring: Scoring = "softmax"
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    swiglu_alpha: float = 1.0
    swiglu_limit: float | None = None
    n_group: int = 1
    topk_group: int = 1
    recurrence: Recurrence | None = None
    recurrent_layers: tuple[bool, ...] | None = None
    group_best: int = 2
    length_limit: int | None = None
    length_limit_key: str | None = None

    def of_layer(self, layer: int) -> "ModelConfig":
        """The settings with the heads and the feed-forward block of a layer."""
        own = self
        if self.intermediate_sizes is not None:
            own = replace(own, intermediate_size=self.intermediate_sizes[layer], intermediate_sizes=None)
        if self.full_head_dim is None or self.slides(layer):
            return own
        kv_heads = self.full_kv_heads or self.num_key_value_heads
        return replace(own, head_dim=self.full_head_dim, num_key_value_heads=kv_heads, full_head_dim=None)

    def shares_kv(self, layer: int) -> bool:
        """Whether a layer takes keys and values of an earlier one."""
        return layer >= self.num_hidden_layers - self.shared_kv_layers

    def kv_layer(self, layer: int) -> int:
        """The layer whose keys and values a layer attends to: itself, or the last one of its type that has its own."""
        if not self.shares_kv(layer):
            return layer
        own = range(self.num_hidden_layers - self.shared_kv_layers)
        return next(found for found in reversed(own) if self.slides(found) == self.slides(layer))

    def for_length(self, tokens: int) -> "ModelConfig":
        """The settings that hold for a text of so many tokens, or a context with room for so many."""
        if self.rope_long_factors is None or self.length_limit is None or tokens <= self.length_limit:
            return self
        long = self.rope_long_factors
        return replace(self, rope_factors=long, rope_long_factors=None, length_limit=None, length_limit_key=None)

    def window(self, layer: int) -> int | None:
        """How many tokens a token of a layer attends to at most; None for all."""
        return self.sliding_window if self.slides(layer) else None

    def chunk(self, layer: int) -> int | None:
        """Tokens of a chunk that a token of a layer attends to; None for no chunks."""
        chunked = self.layer_types is not None and self.layer_types[layer] == CHUNKED
        return self.attention_chunk if chunked else None

    def slides(self, layer: int) -> bool:
        """Whether a layer is one of those with a sliding window, if there is one."""
        return self.layer_types is None or self.layer_types[layer] == SLIDING

    def rotates(self, layer: int) -> bool:
        """Whether q and k of a layer are rotated."""
        return self.rotated_layers is None or self.rotated_layers[layer]

    def has_experts(self, layer: int) -> bool:
        """Whether the feed-forward block of a layer has experts."""
        return self.num_experts > 0 and (self.expert_layers is None or self.expert_layers[layer])

    def recurs(self, layer: int) -> bool:
        """Whether a layer has something else in place of attention."""
        return self.recurrent_layers is not None and self.recurrent_layers[layer]

    @property
    def q_size(self) -> int:
        """Channels of Q: heads times head_dim (not always hidden_size)."""
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Channels of K, and of V."""
        return self.num_key_value_heads * self.head_dim


def same_value(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Tell whether two values of a field are alike, numbers but for the single precision that some formats keep."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or abs(one - other) <= _FLOAT32 * max(abs(one), abs(other))
    return bool(one == other)
