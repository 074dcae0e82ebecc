"""Which rows of a tensor that holds several matrices are those of each, by the name of its module."""

from kernels.config import ModelConfig, Recurrence

BY_GROUP = "qkv_by_group_proj"
Parts = tuple[tuple[tuple[str, int], ...], int]


def fused_parts(module: str, config: ModelConfig) -> Parts:
    """Parts with their rows, and in how many groups these lie: each has its share of every part, in this order.

    A group is a head of keys with what it serves, or a head of queries with its gate.
    """
    q, kv = config.q_size, config.kv_size
    if module == "gate_up_proj":
        return (("gate_proj", config.intermediate_size), ("up_proj", config.intermediate_size)), 1
    if module == "q_proj":
        return (("q_proj", q), ("gate_proj", q)), config.num_attention_heads
    if module.startswith("in_proj_") and config.recurrence is not None:
        return _of_delta_net(module, config.recurrence)
    return (("q_proj", q), ("k_proj", kv), ("v_proj", kv)), config.num_key_value_heads if module == BY_GROUP else 1


def _of_delta_net(module: str, r: Recurrence) -> Parts:
    alone = {"in_proj_z": ("z_proj", r.values), "in_proj_b": ("b_proj", r.heads), "in_proj_a": ("a_proj", r.heads)}
    if module in alone:
        return (alone[module],), 1
    if module == "in_proj_ba":
        return (("b_proj", r.heads), ("a_proj", r.heads)), r.groups
    mixed = (("q_proj", r.keys), ("k_proj", r.keys), ("v_proj", r.values))
    return (mixed, 1) if module == "in_proj_qkv" else ((*mixed, ("z_proj", r.values)), r.groups)
