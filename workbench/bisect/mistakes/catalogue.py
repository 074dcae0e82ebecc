"""Which mistakes each kind of stage can have."""

from collections.abc import Callable, Iterator
from itertools import chain
from types import UnionType

from kernels.graph import Kind
from kernels.kinds.activation import Activation
from kernels.kinds.apart import HeadProduct
from kernels.kinds.attention import Attention
from kernels.kinds.bias import Bias
from kernels.kinds.choice import Choice
from kernels.kinds.convolution import Convolution
from kernels.kinds.delta import Decay, DeltaNet
from kernels.kinds.elementwise import Add, AddBoth, Clip, Multiply, Scaled, ScaledSum
from kernels.kinds.embed import Embed
from kernels.kinds.experts import ExpertInput, ExpertProduct, ExpertSum
from kernels.kinds.gated import Gated
from kernels.kinds.norm import Norm
from kernels.kinds.product import Product
from kernels.kinds.rotate import Rotate, Unrotated
from kernels.kinds.scan import GroupNorm, Scan, Step
from kernels.kinds.temperature import Tempered
from workbench.bisect.mistakes.attention import attention_mistakes
from workbench.bisect.mistakes.channels import (
    channel_mistakes,
    embedding_mistakes,
    head_mistakes,
    other_rows,
    rounded_outputs,
)
from workbench.bisect.mistakes.clip import clip_mistakes
from workbench.bisect.mistakes.experts import (
    choice_mistakes,
    expert_mistakes,
    gate_mistakes,
    head_product_mistakes,
    input_mistakes,
    sum_mistakes,
)
from workbench.bisect.mistakes.ffn import (
    activation_mistakes,
    both_sums_mistakes,
    residual_mistakes,
    scaled_sum_mistakes,
)
from workbench.bisect.mistakes.mistake import Mistake, Question
from workbench.bisect.mistakes.norms import bias_mistakes, norm_mistakes
from workbench.bisect.mistakes.product_before import under_the_bias, under_the_rotation
from workbench.bisect.mistakes.product_roundings import product_roundings
from workbench.bisect.mistakes.products import product_mistakes
from workbench.bisect.mistakes.recurrent import (
    convolution_mistakes,
    decay_mistakes,
    delta_mistakes,
    group_norm_mistakes,
    part_mistakes,
    scan_mistakes,
    step_mistakes,
)
from workbench.bisect.mistakes.rope import rope_mistakes, unrotated_mistakes
from workbench.bisect.mistakes.scalar import scalar_mistakes
from workbench.bisect.mistakes.some_tokens import token_mistakes
from workbench.bisect.mistakes.temperature import temperature_mistakes

Candidates = Callable[[Question], Iterator[Mistake]]

_PRODUCT: tuple[Candidates, ...] = (product_mistakes, product_roundings)
# What rounds to a grid, of which there is much to try, and what was made in another stage.
_NOT_IMAGINED = (product_roundings, rounded_outputs, under_the_bias, under_the_rotation)
_OF_KIND: tuple[tuple[type[Kind] | UnionType, tuple[Candidates, ...]], ...] = (
    (Embed, (embedding_mistakes,)),
    (Norm, (norm_mistakes,)),
    (Product, (*_PRODUCT, head_mistakes)),
    (Bias, (bias_mistakes, under_the_bias)),
    (Clip, (clip_mistakes,)),
    (Rotate, (rope_mistakes, under_the_rotation)),
    (Unrotated, (unrotated_mistakes,)),
    (Tempered, (temperature_mistakes,)),
    (Attention, (attention_mistakes,)),
    (Add, (residual_mistakes,)),
    (AddBoth, (both_sums_mistakes,)),
    (ScaledSum, (scaled_sum_mistakes,)),
    (Scaled, (scalar_mistakes,)),
    (Activation | Multiply, (activation_mistakes,)),
    (Multiply, (part_mistakes,)),
    (Convolution, (convolution_mistakes,)),
    (Decay, (decay_mistakes,)),
    (DeltaNet, (delta_mistakes,)),
    (Step, (step_mistakes,)),
    (Scan, (scan_mistakes,)),
    (GroupNorm, (group_norm_mistakes,)),
    (Choice, (choice_mistakes,)),
    (ExpertProduct, (expert_mistakes,)),
    (HeadProduct, (head_product_mistakes,)),
    (ExpertSum, (sum_mistakes,)),
    (ExpertInput, (input_mistakes,)),
    (Gated, (gate_mistakes,)),
)
_OF_ANY_STAGE: tuple[Candidates, ...] = (channel_mistakes, token_mistakes, rounded_outputs, other_rows)


def mistakes(question: Question, imagined: bool = False) -> Iterator[Mistake]:
    """Every mistake of the catalogue that could concern the stage, with its prediction.

    imagined : the stage was not recorded, and the mistake is judged by what becomes of it at a later one.
    """
    of_kind = (found for kind, found in _OF_KIND if isinstance(question.at.kind, kind))
    for candidates in (*chain.from_iterable(of_kind), *_OF_ANY_STAGE):
        if not (imagined and candidates in _NOT_IMAGINED):
            yield from candidates(question)
