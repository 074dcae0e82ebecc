"""Which mistakes each stage can make."""

from collections.abc import Callable, Iterator

from workbench.bisect.mistakes.attention import attention_mistakes
from workbench.bisect.mistakes.channels import (
    channel_mistakes,
    embedding_mistakes,
    head_mistakes,
    other_rows,
    rounded_outputs,
)
from workbench.bisect.mistakes.ffn import activation_mistakes, residual_mistakes
from workbench.bisect.mistakes.mistake import Mistake, Question
from workbench.bisect.mistakes.norms import bias_mistakes, norm_mistakes
from workbench.bisect.mistakes.product_before import under_the_bias, under_the_rotation
from workbench.bisect.mistakes.product_roundings import product_roundings
from workbench.bisect.mistakes.products import product_mistakes
from workbench.bisect.mistakes.rope import rope_mistakes
from workbench.bisect.mistakes.some_tokens import token_mistakes
from workbench.bisect.models.floor import MATMUL_INPUT

Candidates = Callable[[Question], Iterator[Mistake]]

_PRODUCT: tuple[Candidates, ...] = (product_mistakes, product_roundings)
# What rounds to a grid, of which there is much to try, and what was made in another stage.
_NOT_IMAGINED = (product_roundings, rounded_outputs, under_the_bias, under_the_rotation)
_OF_STAGE: dict[str, tuple[Candidates, ...]] = {
    "embedding": (embedding_mistakes,),
    **dict.fromkeys(("attn_norm", "ffn_norm", "final_norm"), (norm_mistakes,)),
    **dict.fromkeys(MATMUL_INPUT, _PRODUCT),
    "lm_head": (*_PRODUCT, head_mistakes),
    "qkv_bias": (bias_mistakes, under_the_bias),
    **dict.fromkeys(("q_post_rope", "k_post_rope"), (rope_mistakes, under_the_rotation)),
    "attention": (attention_mistakes,),
    **dict.fromkeys(("post_attn_residual", "post_ffn_residual"), (residual_mistakes,)),
    **dict.fromkeys(("ffn_silu", "ffn_swigl"), (activation_mistakes,)),
}
_OF_ANY_STAGE: tuple[Candidates, ...] = (channel_mistakes, token_mistakes, rounded_outputs, other_rows)


def mistakes(question: Question, imagined: bool = False) -> Iterator[Mistake]:
    """Every mistake of the catalogue that could concern the stage, with its prediction.

    imagined : the stage was not recorded, and the mistake is judged by what becomes of it at a later one.
    """
    for candidates in (*_OF_STAGE.get(question.stage, ()), *_OF_ANY_STAGE):
        if not (imagined and candidates in _NOT_IMAGINED):
            yield from candidates(question)
