"""Record the token ids that llama.cpp makes with BPE vocabularies of seven makes: bpe-vocabularies.json.

usage: python -m tests.golden.record_bpe_vocabularies PYTHON (which has llama-cpp-python and sentencepiece)
Each is trained here on other texts, cut by the rule of another family, with added tokens: control ones, and ones that a
user defined, which are found in a text as they stand. Checksums of the ids of the 2,000 texts are kept. Where the
libraries that they come from (tokenizers, sentencepiece) make other ids, the first texts are shown.
"""

import base64
import json
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tests.golden.record_vocabularies import COUNT, ask, checksums, learnt, texts

GOLDEN = Path(__file__).parent / "bpe-vocabularies.json"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL, _DEFINED = ["<s>", "</s>", "<|im_start|>"], ["<mark>", "<|code|>"]


_LLAMA = """
import json, sys
from llama_cpp import Llama
texts, known = json.loads(sys.stdin.read())
for path in sys.argv[1:]:
    llama, some = Llama(path, vocab_only=True, verbose=False), known.get(path)
    print(json.dumps([llama.tokenize(text.encode(), add_bos=True, special=True)
        if some is None or set(text.replace(" ", "\u2581")) <= set(some) else [] for text in texts]), flush=True)
    llama.close()
"""


class Made(NamedTuple):
    """How a byte-level vocabulary is made.

    pre : llama.cpp's name. cut : the rule of words, None for GPT-2's. learnt : the share of the texts it is trained on.
    """

    pre: str
    cut: str | None
    learnt: slice
    digits: bool = False
    bos: bool = False
    nfc: bool = False
    whole: bool = False


BYTE_LEVEL = {
    "gpt-2": Made("gpt-2", None, slice(0, 500)),
    "starcoder": Made("starcoder", None, slice(500, 900), digits=True),
    "qwen2": Made("qwen2", _WORDS % r"\p{N}", slice(900, 1300), nfc=True),
    "llama-3": Made("llama-bpe", _WORDS % r"\p{N}{1,3}", slice(1300, 1700), bos=True, whole=True),
    "tekken": Made("tekken", _TEKKEN, slice(1500, 2000), bos=True, whole=True),
}
SENTENCEPIECE = {"sentencepiece, bytes": True, "sentencepiece, unknown": False}
_TRAIN = """
import io, json, sys, sentencepiece
job, made = json.load(sys.stdin), io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(job["learnt"]), model_writer=made, model_type="bpe", vocab_size=800, character_coverage=0.98,
    byte_fallback=job["bytes"], normalization_rule_name="identity", remove_extra_whitespaces=False, num_threads=1,
    user_defined_symbols=["<mark>", "<|code|>"], split_digits=job["bytes"], hard_vocab_limit=False, minloglevel=2)
sp = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
every = range(sp.get_piece_size())
kinds = [2 if sp.is_unknown(n) else 3 if sp.is_control(n) else 6 if sp.is_byte(n) else 1 for n in every]
tokens = [sp.id_to_piece(n) for n in every]
kinds = [4 if t in ("<mark>", "<|code|>") else k for t, k in zip(tokens, kinds)]
print(json.dumps({"tokens": tokens, "scores": [sp.get_score(n) for n in every], "kinds": kinds,
    "ids": [[1, *sp.encode(text)] for text in job["texts"]]}))
"""


def byte_level(of: Made) -> tuple[dict[str, Any], list[list[int]]]:
    """Return a vocabulary and the ids that tokenizers makes."""
    theirs = Tokenizer(models.BPE(ignore_merges=of.whole))
    cuts: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if of.digits else []
    if of.cut is not None:
        cuts.append(pre_tokenizers.Split(Regex(of.cut), "isolated"))
    cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=of.cut is None))
    theirs.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=650, initial_alphabet=alphabet, special_tokens=_CONTROL)
    theirs.train_from_iterator(texts()[of.learnt], trainer)
    if of.nfc:
        theirs.normalizer = normalizers.NFC()
    theirs.add_tokens([AddedToken(token, normalized=False) for token in _DEFINED])
    if of.bos:
        theirs.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokens = [theirs.id_to_token(n) for n in range(theirs.get_vocab_size())]
    kinds = [3 if token in _CONTROL else 4 if token in _DEFINED else 1 for token in tokens]
    merges = [" ".join(pair) for pair in json.loads(theirs.to_str())["model"]["merges"]]
    made = {"model": "gpt2", "pre": of.pre, "bos": of.bos, "tokens": tokens, "kinds": kinds, "merges": merges}
    return made, [theirs.encode(text).ids for text in texts()]


def sentencepiece(with_bytes: bool) -> tuple[dict[str, Any], list[list[int]]]:
    """Return a vocabulary and the ids that sentencepiece makes."""
    half = learnt()[with_bytes::2]
    made = json.loads(ask(_TRAIN, {"texts": texts(), "learnt": half, "bytes": with_bytes}))
    ids = made.pop("ids")
    return {"model": "llama", "pre": "default", "bos": True, **made}, ids


def bytes_missing(vocabulary: dict[str, Any]) -> bool:
    """Whether llama.cpp ends at a character that is no token (`unordered_map::at`); it is not asked then."""
    return vocabulary["model"] == "llama" and "<0x00>" not in vocabulary["tokens"]


def packed(vocabulary: dict[str, Any]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(vocabulary, ensure_ascii=False).encode(), 9)).decode()


def unpacked(text: str) -> dict[str, Any]:
    return json.loads(zlib.decompress(base64.b64decode(text)))


def write(path: Path, vocabulary: dict[str, Any]) -> str:
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(vocabulary["model"])
    writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["kinds"])
    if "scores" in vocabulary:
        writer.add_token_scores(vocabulary["scores"])
        writer.add_unk_token_id(0)
    else:
        writer.add_token_merges(vocabulary["merges"])
    writer.add_bos_token_id(vocabulary["tokens"].index("<s>"))
    writer.add_eos_token_id(vocabulary["tokens"].index("</s>"))
    writer.add_add_bos_token(vocabulary["bos"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return str(path)


def main() -> None:
    made = {name: byte_level(of) for name, of in BYTE_LEVEL.items()}
    made |= {name: sentencepiece(with_bytes) for name, with_bytes in SENTENCEPIECE.items()}
    recorded = {}
    with tempfile.TemporaryDirectory() as place:
        paths = [write(Path(place) / f"{n}.gguf", vocabulary) for n, (vocabulary, _) in enumerate(made.values())]
        alone = dict(zip(paths, made.values(), strict=True))
        known = {path: vocabulary["tokens"] for path, (vocabulary, _) in alone.items() if bytes_missing(vocabulary)}
        ids = [json.loads(line) for line in ask(_LLAMA, (texts(), known), *paths).splitlines()]
    for (name, (vocabulary, theirs)), ours in zip(made.items(), ids, strict=True):
        recorded[name] = {"vocabulary": packed(vocabulary), "checksums": checksums(ours)}
        unlike = [text for text, x, y in zip(texts(), ours, theirs, strict=True) if x not in (y, [])]
        sys.stdout.write(
            f"{name}: {len(unlike)} of {COUNT} unlike, {ours.count([])} not asked, {sorted(unlike, key=len)[:8]}\n"
        )
    GOLDEN.write_text(json.dumps(recorded, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
