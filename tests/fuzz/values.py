"""Values that readers trip over, and edits of bytes and of JSON."""

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

Json = Any

TEXTS = (
    *("", " ", "\0", "\x1b[2J\x1b]0;x\x07", "\u202e\u2066", "\ud800", "\N{RIGHT-TO-LEFT MARK}", "é" * 40, "a\nb\r\tc"),
    *(
        "../../etc/passwd",
        "/dev/zero",
        "x" * 5000,
        "%s%n{0}",
        "NaN",
        "-1",
        "null",
        "²",
        "1e999",
        "llama",
        "F32",
        "Q4_K",
    ),
)
NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 127, 128, 255, 256, 257, 65535, 65536, 10**6, 10**9, -1, -2, -(2**31)),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 10**30),
)
ODD: tuple[Json, ...] = (
    *(
        None,
        True,
        False,
        0.0,
        -0.0,
        0.5,
        1e-300,
        1e308,
        float("inf"),
        float("-inf"),
        float("nan"),
        [],
        {},
        [[]],
        [None],
    ),
    *({"": ""}, [0] * 300, {"a": {"a": {"a": 1}}}, "1", "true", [1, "a", None], [1e9] * 4),
)


def number(rng: random.Random, value: int = 0) -> int:
    """A whole number that is odd, or near to `value`."""
    near = (
        value + 1,
        value - 1,
        value * 2,
        value // 2,
        -value,
        value ^ (1 << rng.randrange(64)),
        value + 32,
        value * 1000,
    )
    return rng.choice(near) if rng.random() < 0.4 else rng.choice(NUMBERS)


def text(rng: random.Random, value: str = "") -> str:
    """A text that is odd, or like `value`."""
    at = rng.randint(0, len(value))
    near = (
        value + value,
        value[:at],
        value[:at] + rng.choice(TEXTS) + value[at:],
        value.upper(),
        value[::-1],
        value + " ",
    )
    return rng.choice(near) if rng.random() < 0.4 else rng.choice(TEXTS)


def spoiled(rng: random.Random, content: bytes, start: int = 0, stop: int | None = None) -> bytes:
    """Bytes with an edit between start and stop: some replaced, left out, put in twice, or all after them gone."""
    stop = len(content) if stop is None else min(stop, len(content))
    if stop <= start:
        return content
    at = rng.randrange(start, stop)
    size = min(rng.choice((1, 1, 2, 4, 8, 32, 200)), stop - at)
    match rng.randrange(7):
        case 0:
            new = rng.randbytes(size)
        case 1:
            new = b"\xff" * size
        case 2:
            new = bytes(size)
        case 3:
            new = b""
        case 4:
            new = content[at : at + size] * 2
        case 5:
            new = bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 : at + size]
        case _:
            return content[:at]
    return content[:at] + new + content[at + size :]


def places(tree: Json) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from places(tree[key])


def changed_json(rng: random.Random, tree: Json) -> Json:
    """A JSON value with an edit in one place."""
    tree = copy.deepcopy(tree)
    everywhere = list(places(tree))
    if not everywhere:
        return rng.choice(ODD)
    holder, key = rng.choice(everywhere)
    other, twin = rng.choice(everywhere)
    value = holder[key]
    edits: list[Callable[[], object]] = [
        lambda: holder.__setitem__(key, rng.choice(ODD)),
        lambda: holder.__setitem__(key, number(rng, value if type(value) is int else 0)),
        lambda: holder.__setitem__(key, text(rng, value if isinstance(value, str) else "")),
        lambda: holder.__setitem__(key, copy.deepcopy(other[twin])),
        lambda: holder.__setitem__(key, [value] * rng.choice((1, 2, 500))),
        lambda: holder.__setitem__(key, {text(rng): value}),
        lambda: holder.__delitem__(key),
        lambda: holder.__setitem__(text(rng, key), value) if isinstance(holder, dict) else holder.append(value),
    ]
    rng.choice(edits)()
    return tree


def json_bytes(rng: random.Random, tree: Json) -> bytes:
    """JSON as bytes, sometimes with an edit that no JSON value has."""
    content = json.dumps(tree).encode()
    match rng.randrange(24):
        case 0:
            return spoiled(rng, content)
        case 1:  # a key twice
            return re.sub(rb'^\{("[^"]*":)', rb"{\1 1, \1", content)
        case 2:
            return content.replace(b"}", b', "deep": ' + b"[" * 3000 + b"]" * 3000 + b"}", 1)
        case 3:
            return content.replace(b": 1", b": 1" + b"0" * rng.choice((30, 400, 5000)), 1)
        case 4:
            return rng.choice((b"\xef\xbb\xbf" + content, content.decode().encode("utf-16"), b" " * 5000 + content))
    return content
