"""Record the token ids that llama.cpp makes with Unigram, WordPiece and `whitespace` vocabularies: vocabularies.json.

usage: python -m tests.golden.record_vocabularies PYTHON (which has llama-cpp-python, sentencepiece, protobuf)
The vocabularies are trained here on the texts. Of the ids of the 2,000 texts checksums are kept. Where the libraries
that the vocabularies come from make other ids (sentencepiece, tokenizers), the first texts are shown.
"""

import base64
import json
import random
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GOLDEN = Path(__file__).parent / "vocabularies.json"
COUNT = 2000
Theirs = dict[str, list[list[list[int]]]]  # by library: ids of every text, under each setting that it can have
BLOCK = 20
_SNIPPETS = (
    *(
        "def add(a, b):\n    return a + b",
        "for (int i = 0; i < n; ++i) {\n\tsum += x[i];\n}",
        "self.tokens[-1] = None  # end",
    ),
    *("SELECT * FROM t WHERE id=42;", "<div class='x'>&amp;</div>", '{"key": [1, 2.5, null]}', "https://x.org/a?b=c#d"),
    *("Once upon a time there was a little house.", "The quick brown fox jumps over the lazy dog", "it's we'll DON'T"),
    *("Ça va? Où est l'été à Noël", "Größe ÜBER straße", "¿Qué? ¡Señor!", "Zażółć gęślą jaźń", "İstanbul ǅ ΣΊΣΥΦΟΣ Ⅻ"),
    *("你好，世界", "第12章 日本語カタカナ", "한국어 텍스트", "Привет, мир", "Ελλάδα", "नमस्ते", "สวัสดี", "שלום", "مرحبا"),
    *(
        "1 12 123 1234567",
        "3.14 1,000,000 0x1F",
        "١٢٣ ½ ² Ⅷ",
        "a  b   c\t\td",
        "  lead",
        "trail  ",
        "\n\n\n",
        "x\r\ny",
        "\u3000\u00a0\u2003",
    ),
    *(
        "🙂👩\u200d💻",
        "e\u0301A\u030a",
        "ﬁ ﬂ ㎏ ①",
        "→ ≤ ∑",
        "$5 + €6 ~ ^ ` |",
        "...!!??--__",
        "\x07\x1b\u200b\ufeff\ue000",
        "▁x ▁▁",
    ),
    *("<s>", "</s>", "<mark>", "[MASK]", "[CLS]a[SEP]", "<unk>", "[UNK]", "##ing", "<0x41>", "word"),
)
_RANGES = (
    *((0x20, 0x7E), (0xA0, 0x17F), (0x300, 0x36F), (0x391, 0x3C9), (0x400, 0x45F), (0x5D0, 0x5EA), (0x621, 0x64A)),
    *((0x905, 0x94D), (0xE01, 0xE3A), (0x1100, 0x1112), (0x2000, 0x206F), (0x2190, 0x21FF), (0x3001, 0x30FF)),
    *((0x4E00, 0x4FFF), (0xAC00, 0xD7A3), (0xF900, 0xFA0D), (0xFF01, 0xFF5E), (0x1F300, 0x1F64F), (0x20000, 0x20010)),
)
# What the Unigram vocabulary replaces: code points of both sides.
_RULES = {
    **{chr(0xFF01 + n): chr(0x21 + n) for n in range(94)},
    **{"ﬁ": "fi", "㎏": "kg", "①": "1", "½": "1⁄2", "e\u0301": "é", "\t": " ", "\n": " ", "\u3000": " ", "\u00a0": " "},
    **{"\r": " ", **{chr(0x2000 + n): " " for n in range(11)}},
    **{"\u200b": " ", "\x07": "", "\ufeff": "", "ａ\u0301": "á", "🙂": ":)"},
}
RUNS: dict[str, list[dict[str, bool]]] = {
    "unigram": [
        {"add_space_prefix": True, "remove_extra_whitespaces": True},
        {"add_space_prefix": True, "remove_extra_whitespaces": False},
        {"add_space_prefix": False, "remove_extra_whitespaces": False},
    ],
    "wordpiece": [{}, {"normalizer.lowercase": False}, {"normalizer.strip_accents": False}],
    "whitespace": [{}, {"normalizer.lowercase": True}],
}
_MODELS = {"unigram": "t5", "wordpiece": "bert", "whitespace": "whitespace"}


def texts() -> list[str]:
    """Return the texts, the same ones at every call."""
    of = random.Random(16)
    made = list(_SNIPPETS)
    while len(made) < COUNT:
        if of.random() < 0.2:
            made.append("".join(chr(of.randint(*of.choice(_RANGES))) for _ in range(of.randint(1, 24))))
        else:
            parts = [of.choice(_SNIPPETS) for _ in range(of.randint(1, 4))]
            made.append(of.choice(("", " ", "\n", "  ", ", ")).join(parts))
    return made


def learnt() -> list[str]:
    """Return the texts that vocabularies are trained on: few scripts, so that not all characters are known."""
    return [text for text in texts() if text in _SNIPPETS or max(text) < "\u0250"]


def checksums(ids: Sequence[Sequence[int]]) -> list[int]:
    """Return one number for the ids of each 20 texts."""
    blocks = (list(map(list, ids[start : start + BLOCK])) for start in range(0, len(ids), BLOCK))
    return [zlib.crc32(json.dumps(block).encode()) for block in blocks]


_SENTENCEPIECE = """
import io, json, sys, sentencepiece
job = json.load(sys.stdin)
made = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(job["learnt"]), model_writer=made, vocab_size=600, character_coverage=0.98, minloglevel=2,
    normalization_rule_tsv=job["rules"], pad_id=0, eos_id=1, unk_id=2, bos_id=-1, user_defined_symbols=["<mark>"],
    num_threads=1, hard_vocab_limit=False)
from sentencepiece import sentencepiece_model_pb2 as pb
proto = pb.ModelProto.FromString(made.getvalue())
ids = []
for run in job["runs"]:
    proto.normalizer_spec.add_dummy_prefix = run["add_space_prefix"]
    proto.normalizer_spec.remove_extra_whitespaces = run["remove_extra_whitespaces"]
    model = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    ids.append([model.encode(text) for text in job["texts"]])
print(json.dumps({"tokens": [p.piece for p in proto.pieces], "scores": [p.score for p in proto.pieces],
    "kinds": [p.type for p in proto.pieces], "charsmap": list(proto.normalizer_spec.precompiled_charsmap), "ids": ids}))
"""
_LLAMA = """
import json, sys
from llama_cpp import Llama
texts = json.loads(sys.stdin.read())
for path in sys.argv[1:]:
    llama = Llama(path, vocab_only=True, verbose=False)
    print(json.dumps([llama.tokenize(text.encode(), add_bos=True, special=True) for text in texts]), flush=True)
    llama.close()
"""


def ask(program: str, job: object, *arguments: str) -> str:
    command = [sys.argv[1], "-c", program, *arguments]
    done = subprocess.run(command, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def unigram(place: Path) -> tuple[dict[str, Any], Theirs]:
    rules = place / "rules.tsv"
    spelled = (" ".join(f"{ord(c):X}" for c in side) for pair in _RULES.items() for side in pair)
    rules.write_text("".join(f"{left}\t{right}\n" for left, right in zip(spelled, spelled, strict=True)))
    made = json.loads(
        ask(_SENTENCEPIECE, {"texts": texts(), "learnt": learnt(), "rules": str(rules), "runs": RUNS["unigram"]})
    )
    ids = [[[*text, 1] for text in run] for run in made.pop("ids")]
    charsmap = bytes(made["charsmap"])
    theirs = Tokenizer(
        models.Unigram(list(zip(made["tokens"], made["scores"], strict=True)), unk_id=2, byte_fallback=False)
    )
    theirs.normalizer = normalizers.Precompiled(charsmap)  # as transformers 5.24 makes a T5Tokenizer
    cut = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), cut])
    theirs.add_special_tokens(["<pad>", "</s>", "<unk>"])
    theirs.add_tokens(["<mark>"])
    theirs.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made["charsmap"] = base64.b64encode(zlib.compress(charsmap, 9)).decode()
    return made, {"sentencepiece": ids, "tokenizers": [[theirs.encode(text).ids for text in texts()]]}


def wordpiece() -> tuple[dict[str, Any], Theirs]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    theirs = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    theirs.normalizer = normalizers.BertNormalizer(lowercase=True)
    theirs.train_from_iterator(
        learnt(), trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, limit_alphabet=300)
    )
    theirs.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokens = [theirs.id_to_token(n) for n in range(theirs.get_vocab_size())]
    spelled = [*special, *(t[2:] if t.startswith("##") else f"▁{t}" for t in tokens[len(special) :])]
    ids = []
    for run in RUNS["wordpiece"]:
        lowercase, strip = run.get("normalizer.lowercase", True), run.get("normalizer.strip_accents")
        theirs.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip)
        ids.append([theirs.encode(text).ids for text in texts()])
    kinds = [3] * len(special) + [1] * (len(tokens) - len(special))
    return {"tokens": spelled, "kinds": kinds}, {"tokenizers": ids}


def whitespace() -> tuple[dict[str, Any], Theirs]:
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    theirs.decoder = decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<s>", "</s>", "[MASK]"], limit_alphabet=200)
    theirs.train_from_iterator(learnt(), trainer)
    tokens = [theirs.id_to_token(n) for n in range(theirs.get_vocab_size())]
    merges = [" ".join(pair) for pair in json.loads(theirs.to_str())["model"]["merges"]]
    ids = []
    for run in RUNS["whitespace"]:
        theirs.normalizer = normalizers.Lowercase() if run else normalizers.Sequence([])
        ids.append([theirs.encode(text).ids for text in texts()])
    return {"tokens": tokens, "kinds": [3, 3, 3] + [1] * (len(tokens) - 3), "merges": merges}, {"tokenizers": ids}


def write(path: Path, kind: str, vocabulary: dict[str, Any], run: dict[str, bool]) -> str:
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(_MODELS[kind])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["kinds"])
    if kind == "unigram":
        writer.add_token_scores(vocabulary["scores"])
        writer.add_precompiled_charsmap(zlib.decompress(base64.b64decode(vocabulary["charsmap"])))
        writer.add_eos_token_id(1)
        writer.add_unk_token_id(2)
    elif kind == "wordpiece":
        writer.add_bos_token_id(2)
        writer.add_unk_token_id(1)
        writer.add_sep_token_id(3)
    else:
        writer.add_tokenizer_pre("whitespace")
        writer.add_token_merges(vocabulary["merges"])
    for key, value in run.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return str(path)


def main() -> None:
    recorded = {}
    with tempfile.TemporaryDirectory() as place:
        for kind, (vocabulary, theirs) in {
            "unigram": unigram(Path(place)),
            "wordpiece": wordpiece(),
            "whitespace": whitespace(),
        }.items():
            paths = [write(Path(place) / f"{kind}{n}.gguf", kind, vocabulary, run) for n, run in enumerate(RUNS[kind])]
            ids = [json.loads(line) for line in ask(_LLAMA, texts(), *paths).splitlines()]
            recorded[kind] = {**vocabulary, "checksums": [checksums(run) for run in ids]}
            for library, others in theirs.items():
                for run, ours, other in zip(RUNS[kind], ids, others, strict=False):
                    unlike = [text for text, x, y in zip(texts(), ours, other, strict=True) if x != y]
                    sys.stdout.write(f"{kind} {run}: {len(unlike)} of {COUNT} unlike {library}'s, {unlike[:8]}\n")
    GOLDEN.write_text(json.dumps(recorded, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
