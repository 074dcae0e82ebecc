"""How byte-level BPE cuts text into words before it merges: every name that `tokenizer.ggml.pre` may have.

Read from llama.cpp of 2026-10 (`llm_tokenizer_bpe` in src/llama-vocab.cpp, and unicode.cpp, which knows letters but not
their case: what its patterns call upper or lower case letters outside a-z is any letter).
"""

from typing import NamedTuple


class Split(NamedTuple):
    """One rule for cutting text into words.

    patterns : regular expressions applied one after the other, each isolating what it matches.
    whole_words : a word that is itself in the vocabulary is taken without merging.
    adds_bos : text starts with the BOS token unless the file says otherwise; None where it does whatever the file says.
    whole_newlines : a word of newlines that is in the vocabulary is taken without merging.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool | None = False
    whole_newlines: bool = False


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SUFFIX = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"  # what may stand before a word and belongs to it
_WORD = rf"{_BEFORE}\p{{L}}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACE = r"\s+(?!\S)|\s+"
_LINES = rf"\s*[\r\n]+|{_SPACE}"
_REST = rf"{_SIGNS}|{_LINES}"
_LLAMA3 = rf"{_SUFFIX}|{_WORD}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_SUFFIX}|{_WORD}|\p{{N}}|{_REST}"
_CASCADE = "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
_UPPER, _LOWER = r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]"
_SLASHED = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}"


def _cased(upper: str, lower: str, suffix: str = "") -> str:
    """Words at whose changes from lower to upper case they are cut."""
    return rf"{_BEFORE}{upper}*{lower}+{suffix}|{_BEFORE}{upper}+{lower}*{suffix}"


_TEKKEN = rf"{_cased(_UPPER, _LOWER)}|\p{{N}}|{_SLASHED}"
_OPTIONAL = f"(?:{_SUFFIX})?"
_GPT4O = rf"{_cased(_UPPER, _LOWER, _OPTIONAL)}|\p{{N}}{{1,3}}|{_SLASHED}"
_MARKED_UPPER, _MARKED_LOWER = r"[[\p{L}\p{M}]&&[^a-z]]", r"[[\p{L}\p{M}]&&[^A-Z]]"
_ANY_CASE = rf"{_BEFORE}[\p{{L}}\p{{M}}]+{_OPTIONAL}"
# Digits by three from the right; in llama.cpp what stands before the first of them is not cut off.
_THREE_FROM_RIGHT = r"\P{N}*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_HAN_OR_HANGUL = "[[\u0800-\u9fa5\uac00-\ud7ff]&&[^\\s]]+"
_ASCII_SIGN = r"[!-/:-@\[-`{-~]"
_DEEPSEEK = rf"{_ASCII_SIGN}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
_DEEPSEEK3 = rf"{_DEEPSEEK}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}"
# Letters that have a case, but for scripts and blocks that the list of DeepSeek leaves out.
_CASED_LETTERS = (
    "[[\\p{Lu}\\p{Ll}\\p{Lt}&&[\\x00-\uffff]&&[^\u0560-\u0588\u10c7\u10cd\u10d0-\u10ff\u1c80-\u1c8a\u2d00-\u2d2d"
    "\ua790-\ua7fa\uab30-\uab68]]\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]"
)
_WIDE_SIGNS = "[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3001\u3002]"
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ebef\U0002f800-\U0002fa1f"
_NO_HAN = rf"[\p{{L}}&&[^{_HAN}]]"
_KIMI = rf"[{_HAN}]+|{_BEFORE}{_NO_HAN}+{_OPTIONAL}|\p{{N}}{{1,3}}|{_REST}"
_SCRIPTS = (  # that AFMoE keeps together
    "[\u1000-\u109f\u1100-\u11ff\u0e40-\u0eff\u1780-\u17ff\u2f00-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\ud7ff\ue000-\ufaff"
    "\uff65-\uff9f]+"
)
_YOUTU_SCRIPTS = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    f"|[\u3105-\u312f]+|{_CJK}"
)
_NEWLINES = r"[^\n]+|\n+"

_BY_RULE: dict[str, Split] = {
    "default": Split((r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "falcon": Split((r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "gpt-2 phi-2 jina-es jina-de gigachat jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe a.x-4.0 mellum "
    "modern-bert exaone4 mpt olmo jais trillion granite-docling": Split((_GPT2,)),
    "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": Split((r"\p{N}", _GPT2)),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2": Split((_QWEN2,)),
    "qwen35": Split((rf"{_SUFFIX}|{_BEFORE}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES}",)),
    "ufakzeka": Split((rf"{_WORD}|\p{{N}}|{_REST}",)),
    "seed-coder": Split((rf"{_SUFFIX}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_LINES}",)),
    "bailingmoe bailingmoe2 llada-moe": Split((rf"{_SUFFIX}|{_WORD}|\p{{N}}|{_SIGNS}|\s*[\r\n]|{_SPACE}",)),
    "exaone-moe": Split(
        (
            rf"{_SUFFIX}|{_BEFORE}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?"
            rf"|\s*[\r\n]|{_SPACE}",
        )
    ),
    "laguna": Split((_NEWLINES, _QWEN2)),
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": Split((_LLAMA3,), True, True),
    "dbrx smaug-bpe chatglm-bpe": Split((_LLAMA3,)),
    "glm4 glm5": Split((_LLAMA3,), True),
    "jais-2": Split((rf"{_SUFFIX}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|\s*[\r\n]+|{_CASCADE}|\s",)),
    "minicpm5": Split((r"\p{N}{1,3}", rf"{_SUFFIX}|{_WORD}|\p{{N}}+|{_REST}"), True),
    "tekken": Split((_TEKKEN,), True, True),
    "gpt-4o llama4 kanana2 talkie minimax-m2": Split((_GPT4O,)),
    "granite-embed-multi-97m": Split(
        (rf"{_cased(_MARKED_UPPER, _MARKED_LOWER, _OPTIONAL)}|\p{{N}}{{1,3}}|{_SLASHED}",), True
    ),
    "tiny_aya cohere2moe": Split((_THREE_FROM_RIGHT, rf"{_ANY_CASE}|\p{{N}}{{1,3}}|{_SLASHED}")),
    "youtu": Split((_YOUTU_SCRIPTS, rf"{_ANY_CASE}|\p{{N}}|{_SLASHED}"), True),
    "superbpe": Split((r"\p{N}+", "[0-9]{3}(?=(?:[0-9]{3})*(?![0-9]))")),
    "deepseek-llm": Split(
        (r"[\r\n]", rf"\s?{_CASED_LETTERS}+", rf"\s?{_WIDE_SIGNS}+", r"\s+\z", _HAN_OR_HANGUL, r"\p{N}+")
    ),
    "deepseek-coder": Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_OR_HANGUL, r"\p{N}")),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": Split((r"\p{N}{1,3}", _CJK, _DEEPSEEK3)),
    "spark2_5": Split((r"\p{N}{1,3}", _CJK, rf"{_DEEPSEEK}| ?[\p{{P}}\p{{S}}]+|[\r\n]|{_SPACE}", r"\p{N}")),
    "afmoe": Split((_THREE_FROM_RIGHT, _SCRIPTS, _DEEPSEEK3)),
    "kimi-k2": Split((_KIMI,)),
    "poro-chat bloom gpt3-finnish": Split((_BLOOM,)),
    "viking": Split((_BLOOM, r"\p{N}")),
    "chameleon": Split(
        (
            "<sentinel:[0-9]+>",
            "IMGIMG[A-I]{1,4}Z",
            r"[\t\n]|    |  ",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        adds_bos=True,
    ),
    "gemma4 granite-embed-multi-311m": Split((_NEWLINES,), adds_bos=None, whole_newlines=True),
    "sarvam-moe": Split((_NEWLINES,)),
    "whitespace": Split((r"\S+",)),
}
# By every name of them.
SPLITS: dict[str, Split] = {name: split for names, split in _BY_RULE.items() for name in names.split()}
