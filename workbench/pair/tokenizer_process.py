"""The process that reads a tokenizer.json: its library can abort on a malformed file, which must not end this program.

Run by workbench.pair.tokenizer as `python -m workbench.pair.tokenizer_process`. On stdin, as JSON: {"file", "text",
"tokens"}. On stdout the ids of the text, how the file spells each of the tokens, and whether its characters stand for
bytes: {"ids", "pieces", "byte_level"}, or {"error"}.
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


def _answer(file: str, text: str, tokens: list[int]) -> dict[str, Any]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return {
        "ids": tokenizer.encode(text).ids if text else [],
        "pieces": [tokenizer.id_to_token(token) or "" for token in tokens],
        "byte_level": "ByteLevel" in repr(tokenizer.pre_tokenizer),
    }


if __name__ == "__main__":
    main()
