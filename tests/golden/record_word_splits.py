"""Record the token ids that llama.cpp makes under every name of a pre-tokenizer: word-splits.json.

usage: python -m tests.golden.record_word_splits PYTHON (which has llama-cpp-python)
The vocabulary has a token for all two bytes that are neighbours in the texts, so that a word that is cut elsewhere gets
other ids.
Names under which all ids are the same stand together.
"""

import json
import subprocess
import sys
import tempfile
import zlib
from itertools import pairwise
from pathlib import Path

import gguf

from store.vocabulary import SPELLED_AS_TEXT
from workbench.pair.embedded_tokenizer import byte_alphabet, to_byte_alphabet
from workbench.pair.word_splits import SPLITS

GOLDEN = Path(__file__).parent / "word-splits.json"
TEXTS = (
    "def add(a, b):\n    return a+b\n\n\n  # don't",
    "HTTPServer iPhone we'LL it'S 'tis can't've",
    "1 12 123 1234567 3.14 x12 0x1F 1,000,000",
    "a  b   c\t\td \n e\r\n\r\n  \u3000x\u00a0y ",
    "你好，世界 第12章 日本語カタカナ한국어 ｱ",
    "Привет Ελλάδα नमस्ते สวัสดี e\u0301A\u030a ñ",
    "path/to//x !?\n/ ...\n== <=> ~^`|$5 (a)[b]{c}",
    "🙂👩\u200d💻 €5 ½² ١٢٣ Ⅻ 𐐀 𝒜 ՠ ",
    "<sentinel:3> IMGIMGABZ [INST] @user #tag ¿Qué? “x”",
    "word\n\nword\n    \n a.\n b  ",
    "Ali'den 'same\n           x            ",
)
WHOLE = "word"  # a token that no merge makes


def vocabulary(as_text: bool) -> tuple[list[str], list[str]]:
    """Tokens and merges: every byte or character, then all neighbours in the texts, in an order of no meaning."""
    spelled = [text.replace(" ", "▁") if as_text else to_byte_alphabet(text) for text in TEXTS]
    first = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))] if as_text else ["<s>", *byte_alphabet()]
    pairs = {pair for text in spelled for pair in pairwise(text) if not as_text or "\n" not in pair}
    ordered = sorted(pairs, key=lambda pair: zlib.crc32("".join(pair).encode()))
    return list(dict.fromkeys([*first, *"".join(spelled), *map("".join, ordered)])), [
        " ".join(pair) for pair in ordered
    ]


def kinds(tokens: list[str], as_text: bool) -> list[int]:
    first = [2, 3, 3, *[6] * 256] if as_text else [3]
    return [*first, *[1] * (len(tokens) - len(first))]


_SCRIPT = """
import json, sys
from llama_cpp import Llama
texts = json.loads(sys.stdin.read())
for path in sys.argv[1:]:
    llama = Llama(path, vocab_only=True, verbose=False)
    print(json.dumps([llama.tokenize(text.encode(), add_bos=True, special=True) for text in texts]), flush=True)
    llama.close()
"""


def write(path: Path, pre: str) -> str:
    as_text = pre in SPELLED_AS_TEXT
    tokens, merges = vocabulary(as_text)
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("whitespace" if pre == "whitespace" else "gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds(tokens, as_text))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(int(as_text))
    writer.add_eos_token_id(int(as_text) * 2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return str(path)


def main() -> None:
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as place:
        paths = [write(Path(place) / f"{pre}.gguf", pre) for pre in SPLITS]
        done = subprocess.run(
            [sys.argv[1], "-c", _SCRIPT, *paths], input=json.dumps(TEXTS), capture_output=True, text=True, check=True
        )
    for pre, ids in zip(SPLITS, done.stdout.splitlines(), strict=True):
        found.setdefault(ids, []).append(pre)
    rules = [{"names": names, "ids": json.loads(ids)} for ids, names in found.items()]
    GOLDEN.write_text(json.dumps(rules, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
