"""How to mend what a bisection has found: one sentence for every cause."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.bisect.verdict import Culprit

FIXES: dict[str, str] = {
    "transposed": "Write the tensor as the format has it, rows of outputs by columns of inputs; the converter left it "
    "transposed.",
    "permuted_rope": "Order the rows of q and k for the rotary convention that the copy names (halves or adjacent "
    "pairs), or name the other convention; the converter reordered them once too often or not at all.",
    "gate_up_swapped": "Exchange gate_proj and up_proj in the converter's table of names, or split a fused tensor in "
    "the other order.",
    "qk_swapped": "Exchange q_proj and k_proj in the converter's table of names, or split a fused tensor in the other "
    "order.",
    "wrong_layer": "Correct the layer number with which the converter names this tensor, and convert it again.",
    "scaled": "Find the factor that one side applies and the other does not (a scale of the weights, a merged "
    "multiplier) and apply it once.",
    "sign_flipped": "Take the sign back out of the conversion of this tensor; codes are read as signed on one side "
    "only, or a minimum is added instead of subtracted.",
    "zeroed": "Convert the tensor again and check that it was read to its end: it holds zeros where the other side "
    "has values.",
    "norm_offset": "Add 1 to the norm weights exactly once, in the converter or in the runtime, as the family of "
    "models has them.",
    "bias_missing": "Carry the biases over: convert them under their names and let the runtime add them.",
    "bias_wrong": "Convert the bias again from the same source and in the same order of rows as its matrix.",
    "requantized": "Quantize from the source in full precision, and not from a copy that was quantized before.",
    "corrupted_blocks": "Copy or convert the file again and compare its checksum: some blocks of the tensor are "
    "damaged.",
    "rows_permuted": "Join the parts of the tensor in the order of the heads, and not rank by rank as a "
    "tensor-parallel checkpoint stores them.",
    "dtype_truncated": "Keep the tensor in the type that it came in; a narrower one on the way has cut its bits off.",
    "tied_embedding": "Use the embedding as the output head where the model ties the two, and the head of its own "
    "where it does not.",
    "rope_theta": "Write the rotary base and its scaling into the copy as the source's configuration has them.",
    "rope_type": "Rotate the pairs that the model was trained with: halves for Hugging Face order, adjacent pairs for "
    "llama's own.",
    "rope_position": "Count the positions from where the other side does; a chunk or a cache starts with the wrong "
    "one.",
    "rms_norm_eps": "Write the epsilon of the norms into the copy as the source's configuration has it.",
    "head_grouping": "Write the numbers of query and of key heads as the source's configuration has them, and let "
    "each key head serve neighbouring query heads.",
    "attention_scale": "Scale the scores once, by the factor of the model's configuration (1/√head_dim if it names "
    "none).",
    "norm_missing": "Norm the values where the model does, and multiply them with the norm's weight if it has one.",
    "kv_source": "Attend to the keys and values that the model does: those of the layer itself, or of the last one of "
    "its type that has its own where layers share; values are not rotated.",
    "attention_sink": "Give the softmax of every head the score of its own sink beside those of the keys, and nothing "
    "to what it takes.",
    "activation_function": "Use the activation that the configuration names; SiLU and the kinds of GELU are not the "
    "same function.",
    "residual_missing": "Add the input of the block to its output, once, before the next norm.",
    "causal_mask": "Mask exactly the tokens that come later, offset by what is cached, and beyond the window only in "
    "layers that have one.",
    "token_scope": "Compare and compute the same tokens on both sides; one side has taken another row or only the "
    "last.",
    "activation_quantization": "Round the activations in blocks and with the scale that the weight format asks for, "
    "or keep them in float.",
    "kv_precision": "Keep keys and values in a wider type, or accept what this cache rounds and say so.",
    "low_rank": "Merge the same adapter into both sides, or into neither.",
    "group_offset": "Correct the zero point of the groups by the constant that was found; packers of INT4 store it "
    "less one.",
    "zero_point": "Read or write the zero points as the method has them: GPTQ's first version stores them less one, "
    "its second and AWQ do not.",
    "reciprocal_scale": "Multiply with the scale, or divide by it, as the method has it: weight_scale_inv multiplies, "
    "weight_global_scale divides.",
    "nibble_order": "Take the codes out of their words in the order of the method: the lowest bits first, eight "
    "outputs in AWQ's own order, the upper nibble first in bitsandbytes.",
    "scale_order": "Let every group of columns keep its own scale: follow g_idx, and move scales and zero points with "
    "the rows or columns that are moved.",
    "router": "Choose as many experts as the configuration says, by its scores and with what it adds for the choice "
    "only, and count them as it says: divided by their sum or not, times its factor.",
    "expert_order": "Stack the experts in the order of their numbers, and let the weight of an expert meet what that "
    "expert gives.",
    "recurrence": "Compute what stands in place of attention as the family does: its convolution, "
    "gates, decays and steps.",
    "overflow": "Compute the stage in a type with a wider range (bfloat16 or float32), or scale before it as the "
    "model was trained to.",
    "unknown": "No mistake of the catalogue makes this difference: look at the largest elements of the cell and at "
    "how the stage is computed or its tensor was made, on the side that is further off float64.",
}


def fix_of(culprit: "Culprit") -> str:
    """Say in a sentence how to mend what is wrong at a culprit."""
    return FIXES.get(culprit.cause, FIXES["unknown"])
