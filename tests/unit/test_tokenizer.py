"""Token ids against llama.cpp's (golden/tokens.json, word-splits.json) and the tokenizers library's own GPT-2 rules."""

import base64
import contextlib
import json
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import workbench.demo
from store.open import open_artifact, open_model
from store.token_table import token_table
from store.vocabulary import SPELLED_AS_TEXT, LazyArray, Vocabulary
from tests.golden import record_bpe_vocabularies as bpe
from tests.golden.record_vocabularies import BLOCK, RUNS, checksums, texts, write
from tests.golden.record_word_splits import TEXTS, kinds, vocabulary
from workbench.pair.embedded_tokenizer import ByteLevelBpe, SentencePiece, WhitespaceBpe, byte_alphabet
from workbench.pair.prompt import TokenizerError
from workbench.pair.tokenizer import decode_tokens, encode, encode_all
from workbench.pair.unigram import Unigram
from workbench.pair.word_splits import SPLITS
from workbench.pair.wordpiece import WordPiece

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "tokens.json").read_text())
ARTIFACT = open_artifact(workbench.demo.MODEL)
VOCABULARY = ARTIFACT.vocabulary


def lazy(values):
    return LazyArray(len(values), "string", lambda: list(values))


def carrying(vocabulary):
    return SimpleNamespace(path=Path("model.gguf"), vocabulary=vocabulary, metadata={})


def sentencepiece(**changes):
    words = GOLDEN["llama"]["words"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, "<mark>"]
    scores = [0.0] * 259 + GOLDEN["llama"]["scores"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(words) + [4]
    fields = {"bos_id": 1, "eos_id": 2, "unk_id": 0, **changes}
    return Vocabulary("spm", tokens=lazy(tokens), scores=lazy(scores), token_types=lazy(kinds), **fields)


def small(kind, **changes):
    fields = {"tokens": lazy(["<unk>", "▁t", "x", "e"]), "scores": lazy([0.0, -1.0, -1.0, -2.0])}
    return Vocabulary(kind, **fields | changes)


@pytest.mark.parametrize("pre", GOLDEN["gpt2"])
def test_byte_level_ids_are_those_of_llama_cpp(pre):
    tokenizer = ByteLevelBpe(replace(VOCABULARY, pre=pre, add_bos=None if pre in ("llama-bpe", "tekken") else False))
    assert [tokenizer.encode(text) for text in GOLDEN["texts"]] == GOLDEN["gpt2"][pre]


def test_sentencepiece_ids_are_those_of_llama_cpp():
    tokenizer = SentencePiece(sentencepiece())
    assert [tokenizer.encode(text) for text in GOLDEN["llama"]["texts"]] == GOLDEN["llama"]["ids"]


def test_prompt_of_the_shipped_model():
    ids = [482, 803, 10, 67, 14, 310, 307]
    assert encode(ARTIFACT, "def add(a, b):") == ids
    assert decode_tokens(ARTIFACT, ids) == ["def", " add", "(", "a", ",", " b", "):"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_gpt2_split_agrees_with_the_librarys_own(text):
    tokens = VOCABULARY.tokens.decode()
    merges = [tuple(line.split(" ")) for line in VOCABULARY.merges.decode()]
    theirs = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    ours = ByteLevelBpe(replace(VOCABULARY, token_types=None))
    assert ours.encode(text) == theirs.encode(text).ids


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_pieces_spell_the_text(text):
    for tokenizer in (ByteLevelBpe(VOCABULARY), SentencePiece(sentencepiece(add_bos=False, add_space_prefix=False))):
        shown = "".join(tokenizer.pieces(tokenizer.encode(text)))
        assert shown.encode("utf-8", "surrogateescape").decode("utf-8") == text


def test_pieces_are_safe_to_show():
    vocabulary = replace(VOCABULARY, tokens=lazy(["\x1b[31mred", *VOCABULARY.tokens.decode()[1:]]))
    assert decode_tokens(carrying(vocabulary), [0, 99999]) == ["\\x1b[31mred", "token 99999"]


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        (None, "no tokenizer"),
        (replace(VOCABULARY, pre="klingon"), "klingon"),
        (replace(VOCABULARY, tokens=lazy(["a", "b"])), "byte 0x74"),
        (replace(sentencepiece(), scores=None), "scores"),
        (Vocabulary("hf_json", json_path=Path("nowhere.json")), "does not exist"),
        (replace(VOCABULARY, pre="whitespace"), "whitespace alone"),
        (small("unigram", scores=lazy([0.0, -1.0, float("nan"), -2.0])), "the score of token 2 is nan"),
        (small("unigram", tokens=lazy(["<unk>", "▁t", "x", "▁t"])), "tokens 1 and 3 are both '▁t'"),
        (small("unigram", tokens=lazy(["▁", "t"]), scores=lazy([0.0, 0.0])), "no unknown token"),
        (small("unigram", token_types=lazy([2, 3, 3, 3])), "no normal token"),
        (small("unigram", charsmap=lazy([255, 255])), "precompiled_charsmap ends"),
        (small("unigram", charsmap=lazy([4, 0, 0, 0, 0, 255, 255, 127, 0])), "precompiled_charsmap points outside"),
        (small("wordpiece", unk_id=0), "before or behind"),
        (small("wordpiece", bos_id=0, sep_id=0), "no unknown token"),
        (small("wordpiece", tokens=lazy(["a", "a"])), "tokens 0 and 1"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_named_with_the_way_out(vocabulary, words):
    with pytest.raises(TokenizerError, match=words) as caught:
        encode(carrying(vocabulary), "text")
    assert str(caught.value).startswith("model.gguf")
    assert "--tokens" in str(caught.value)


def test_an_empty_prompt_is_refused():
    with pytest.raises(TokenizerError, match="no tokens"):
        encode(ARTIFACT, "")


def test_tokenizer_json_is_read(tmp_path):
    file = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "Ġ": 3}, [("a", "b")]))
    file.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    file.enable_truncation(2)
    file.save(str(tmp_path / "tokenizer.json"))
    artifact = carrying(Vocabulary("hf_json", json_path=tmp_path / "tokenizer.json"))
    assert encode(artifact, "ababab a") == [2, 2, 2, 3, 0]
    assert decode_tokens(artifact, [2, 3, 9]) == ["ab", " ", "token 9"]


def test_a_tokenizer_json_that_makes_its_library_panic_is_one_sentence(tmp_path):
    merges = [["a", "b"]]
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": merges, "continuing_subword_prefix": "long"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    artifact = carrying(Vocabulary("hf_json", json_path=tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="tokenizers library fail"):
        encode(artifact, "ab")
    assert decode_tokens(artifact, [0]) == ["token 0"]


@given(st.lists(st.text(max_size=4), max_size=30), st.lists(st.text(max_size=6), max_size=10), st.data())
def test_a_hostile_vocabulary_never_fails_in_another_way(tokens, merges, data):
    every = [*byte_alphabet(), *tokens]
    kinds = data.draw(st.lists(st.integers(0, 7), min_size=len(every), max_size=len(every)))
    scores = data.draw(st.lists(st.floats(), min_size=len(every), max_size=len(every)))
    table = lazy(data.draw(st.lists(st.integers(-128, 255), max_size=40).map(lambda nodes: [8, 0, 0, 0, *nodes])))
    for kind in ("bpe", "spm", "unigram", "wordpiece", "whitespace"):
        tokens = lazy(every if kind in ("bpe", "spm") else list(dict.fromkeys(every)))
        vocabulary = Vocabulary(kind, None, tokens, lazy(merges), lazy(scores), lazy(kinds), add_bos=True)
        vocabulary = replace(vocabulary, charsmap=table if kind == "unigram" else None)
        with contextlib.suppress(TokenizerError):
            ids = encode(carrying(vocabulary), "def add(a, b): é▁")
            assert all(0 <= token < len(every) for token in ids)


WORD_SPLITS = json.loads((Path(__file__).parent.parent / "golden" / "word-splits.json").read_text())


@pytest.mark.parametrize("rule", WORD_SPLITS, ids=lambda rule: rule["names"][0])
def test_words_are_cut_as_llama_cpp_cuts_them(rule):
    for pre in rule["names"]:
        as_text = pre in SPELLED_AS_TEXT
        tokens, merges = vocabulary(as_text)
        types = kinds(tokens, as_text)
        bos = int(as_text)
        kind, made = ("whitespace", WhitespaceBpe) if pre == "whitespace" else ("bpe", ByteLevelBpe)
        tokenizer = made(Vocabulary(kind, None, lazy(tokens), lazy(merges), None, lazy(types), pre, bos))
        assert [tokenizer.encode(text) for text in TEXTS] == rule["ids"], pre


VOCABULARIES = json.loads((Path(__file__).parent.parent / "golden" / "vocabularies.json").read_text(encoding="utf-8"))


def trained(kind, **changes):
    made = VOCABULARIES[kind]
    special = {
        "unigram": {"eos_id": 1, "unk_id": 2},
        "wordpiece": {"bos_id": 2, "unk_id": 1, "sep_id": 3},
        "whitespace": {"pre": "whitespace"},
    }
    fields = {name: lazy(made[name]) for name in ("tokens", "merges", "scores") if name in made}
    if kind == "unigram":
        fields["charsmap"] = lazy(zlib.decompress(base64.b64decode(made["charsmap"])))
    return Vocabulary(kind, token_types=lazy(made["kinds"]), **fields | special[kind] | changes)


def rebuilt(kind, run):
    settings = {key.removeprefix("normalizer."): value for key, value in RUNS[kind][run].items()}
    return {"unigram": Unigram, "wordpiece": WordPiece, "whitespace": WhitespaceBpe}[kind](trained(kind, **settings))


BPE = json.loads((Path(__file__).parent.parent / "golden" / "bpe-vocabularies.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", BPE)
def test_ids_of_bpe_vocabularies_of_every_make_are_those_of_llama_cpp(tmp_path, name):
    made = bpe.unpacked(BPE[name]["vocabulary"])
    model = open_model(Path(bpe.write(tmp_path / "m.gguf", made)))
    known = set(made["tokens"]) if bpe.bytes_missing(made) else None
    asked = [known is None or set(text.replace(" ", "▁")) <= known for text in texts()]
    ids = iter(encode_all(model, [text for text, is_asked in zip(texts(), asked, strict=True) if is_asked], True))
    assert checksums([next(ids) if is_asked else [] for is_asked in asked]) == BPE[name]["checksums"]
    if known is not None:
        with pytest.raises(TokenizerError, match="no token for the byte 0xE5"):
            encode_all(model, ["a 句 b 好"], True)


@pytest.mark.parametrize("kind", RUNS)
def test_what_a_gguf_says_of_its_tokenizer_is_read(tmp_path, kind):
    write(tmp_path / "m.gguf", kind, VOCABULARIES[kind], RUNS[kind][1])
    model = open_model(tmp_path / "m.gguf")
    assert encode_all(model, texts()[:60], True) == [rebuilt(kind, 1).encode(text) for text in texts()[:60]]
    assert token_table(model).kind == {"unigram": "Unigram", "wordpiece": "WordPiece", "whitespace": "BPE"}[kind]


@pytest.mark.parametrize(("kind", "run"), [(kind, run) for kind, runs in RUNS.items() for run in range(len(runs))])
def test_ids_of_2000_texts_are_those_of_llama_cpp(kind, run):
    made = rebuilt(kind, run)
    found, wanted = checksums([made.encode(text) for text in texts()]), VOCABULARIES[kind]["checksums"][run]
    unlike = [texts()[BLOCK * n : BLOCK * (n + 1)] for n in range(len(wanted)) if found[n] != wanted[n]]
    assert not unlike, unlike[0]


def folder(path, model, normalizer, pre_tokenizer, around):
    made = Tokenizer(model)
    made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizer
    made.post_processor = processors.TemplateProcessing(single=around[0], special_tokens=around[1])
    made.save(str(path / "tokenizer.json"))
    return carrying(Vocabulary("hf_json", json_path=path / "tokenizer.json"))


def test_a_folder_with_unigram_makes_the_ids_of_its_gguf(tmp_path):
    held = VOCABULARIES["unigram"]
    model = models.Unigram(list(zip(held["tokens"], held["scores"], strict=True)), 2, False)
    table = normalizers.Precompiled(zlib.decompress(base64.b64decode(held["charsmap"])))
    words = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    one = folder(tmp_path, model, table, words, ("$A </s>", [("</s>", 1)]))
    other = carrying(trained("unigram", add_space_prefix=True, remove_extra_whitespaces=True))
    plain = [text for text in texts()[:28] if "▁" not in text]
    assert encode_all(one, plain, True) == encode_all(other, plain, True)


def test_a_folder_with_wordpiece_makes_the_ids_of_its_gguf(tmp_path):
    tokens = VOCABULARIES["wordpiece"]["tokens"]
    spelled = [*tokens[:5], *(token[1:] if token[0] == "▁" else f"##{token}" for token in tokens[5:])]
    model = models.WordPiece({token: n for n, token in enumerate(spelled)}, unk_token="[UNK]")
    around = ("[CLS] $A [SEP]", [("[CLS]", 2), ("[SEP]", 3)])
    one = folder(tmp_path, model, normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), around)
    other = carrying(trained("wordpiece"))
    plain = [text for text in texts()[:20] if "한" not in text]
    assert encode_all(one, plain, True) == encode_all(other, plain, True)
    assert [table_of(model).texts[10:] for model in (one, other)] == [table_of(one).texts[10:]] * 2


def table_of(model):
    found = token_table(model)
    assert found.kind == "WordPiece"
    return found


@pytest.mark.parametrize(
    ("tokens", "lengths"),  # as llama.cpp cuts each token, all stored as plain
    [(["</s>"], [1]), (["</s>", "<|tool_response>"], [4, 1]), (["<|channel|>", "<|start|>"], [1, 1])],
)
def test_what_llama_cpp_takes_for_special_by_its_text(tokens, lengths):
    every = lazy([*byte_alphabet(), *tokens])
    made = ByteLevelBpe(Vocabulary("bpe", tokens=every, merges=lazy(["a b"]), pre="gpt-2"))
    assert [len(made.encode(token)) for token in tokens] == lengths


def test_white_space_behind_special_tokens_is_dropped_where_llama_cpp_drops_it():
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a", "b"]
    tokens += ["<|user|>", "<|end|>", "<|endoftext|>"]
    kinds = [2, 3, 3, *[6] * 256, 1, 1, 1, 1, 3, 3, 3]
    vocabulary = Vocabulary("spm", tokens=lazy(tokens), scores=lazy([0.0] * 266), token_types=lazy(kinds), bos_id=1)
    phi3 = SentencePiece(replace(vocabulary, strips_behind_special=True))
    assert phi3.encode("<|user|>\n a<|end|> \n<|user|>\n") == [1, 263, 261, 264, 263]  # recorded, as the next two
    assert phi3.encode("<s> a<|endoftext|>\nb</s>\t a") == [1, 1, 259, 261, 265, 259, 13, 262, 2, 261]
    assert SentencePiece(vocabulary).encode("<|user|>  ") == [1, 263, 259, 259, 259]


def test_a_kind_of_tokenizer_that_is_not_read_is_named():
    model = SimpleNamespace(path=Path("m.gguf"), vocabulary=None, metadata={"tokenizer.ggml.model": "rwkv"})
    with pytest.raises(TokenizerError, match=r"m\.gguf carries a tokenizer of the kind 'rwkv'.*--tokens"):
        encode(model, "text")


def test_every_name_of_a_rule_is_recorded():
    assert sorted(name for rule in WORD_SPLITS for name in rule["names"]) == sorted(SPLITS)
