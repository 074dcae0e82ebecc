"""The process that reads a tokenizer.json: its library can abort on a malformed file, which must not end this program.

Run by workbench.pair.tokenizer as `python -m workbench.pair.tokenizer_process`. On stdin, as JSON: {"file", "texts",
"around", "tokens"}. On stdout the ids of every text, with what its post-processor puts around it if `around`; the ids
that are put before and behind a text; how the file spells each of the tokens, and whether its characters stand for
bytes: {"ids", "around", "pieces", "byte_level"}, or {"error"}.
"""

import json
import sys
from typing import Any


def main() -> None:
    """Answer one job."""
    job = json.load(sys.stdin)
    try:
        answer = _answer(**job)
    except Exception as error:  # the library raises bare Exception
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


def _answer(file: str, texts: list[str], around: bool, tokens: list[int]) -> dict[str, Any]:
    from tokenizers import Tokenizer

    def encode(text: str, around: bool) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=around).ids if text else []
        return ids

    tokenizer = Tokenizer.from_file(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    bare, whole = encode("a", False), encode("a", True)
    start = next((n for n in range(len(whole)) if whole[n : n + len(bare)] == bare), 0)
    return {
        "ids": [encode(text, around) for text in texts],
        "around": [whole[:start], whole[start + len(bare) :]],
        "pieces": [tokenizer.id_to_token(token) or "" for token in tokens],
        "byte_level": "ByteLevel" in repr(tokenizer.pre_tokenizer),
    }


if __name__ == "__main__":
    main()
