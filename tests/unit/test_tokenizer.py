"""Token ids against llama.cpp's (golden/tokens.json, word-splits.json) and the tokenizers library's own GPT-2 rules."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

import workbench.demo
from store.open import open_artifact
from store.vocabulary import SPELLED_AS_TEXT, LazyArray, Vocabulary
from tests.golden.record_word_splits import TEXTS, kinds, vocabulary
from workbench.pair.embedded_tokenizer import ByteLevelBpe, SentencePiece, byte_alphabet
from workbench.pair.tokenizer import TokenizerError, decode_tokens, encode
from workbench.pair.word_splits import SPLITS

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "tokens.json").read_text())
ARTIFACT = open_artifact(workbench.demo.MODEL)
VOCABULARY = ARTIFACT.vocabulary


def lazy(values):
    return LazyArray(len(values), "string", lambda: list(values))


def carrying(vocabulary):
    return SimpleNamespace(path=Path("model.gguf"), vocabulary=vocabulary)


def sentencepiece(**changes):
    words = GOLDEN["llama"]["words"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, "<mark>"]
    scores = [0.0] * 259 + GOLDEN["llama"]["scores"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(words) + [4]
    fields = {"bos_id": 1, "eos_id": 2, "unk_id": 0, **changes}
    return Vocabulary("spm", tokens=lazy(tokens), scores=lazy(scores), token_types=lazy(kinds), **fields)


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
    for kind in ("bpe", "spm"):
        vocabulary = Vocabulary(kind, None, lazy(every), lazy(merges), lazy(scores), lazy(kinds), add_bos=True)
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
        tokenizer = ByteLevelBpe(Vocabulary("bpe", None, lazy(tokens), lazy(merges), None, lazy(types), pre, bos))
        assert [tokenizer.encode(text) for text in TEXTS] == rule["ids"], pre


def test_every_name_of_a_rule_is_recorded():
    assert sorted(name for rule in WORD_SPLITS for name in rule["names"]) == sorted(SPLITS)
