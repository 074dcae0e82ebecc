"""Whether two models are fed alike: healthy copies, and every mistake that converters and people make."""

import json
from dataclasses import replace

import pytest

from store.open import open_model
from store.token_table import token_table
from tests.artifacts import tiny_gguf
from tests.chat_models import CHATML, WITH_BOS, TinyTokenizer, chat_model, write_chat_folder, write_chat_gguf
from tests.gguf_files import write_gguf
from workbench.__main__ import run
from workbench.demo import MODEL
from workbench.feeding.comparison import compare_feeding
from workbench.pair.prompt import Chat

TOKENIZER = TinyTokenizer()
BOS = TinyTokenizer(WITH_BOS, add_bos=True)


def compared(a, b, prompt=None):
    return compare_feeding(open_model(a), open_model(b), prompt, lambda done, total, what: None)


def pair(folder, a, b=None, **sizes):
    """A Hugging Face folder with the one tokenizer, a GGUF with the other."""
    hf = write_chat_folder(folder / "hf", a, chat_model(**sizes))
    return hf, write_chat_gguf(folder / "model.gguf", b or a, chat_model(**sizes))


def rows_of(feeding, status):
    return {row.what: row.words for row in feeding.rows if row.status == status}


@pytest.mark.parametrize("tokenizer", [TOKENIZER, BOS, TinyTokenizer(None, pre="gpt-2"), TinyTokenizer(bos=None)])
def test_healthy_copies_are_fed_alike(tokenizer, tmp_path):
    found = compared(*pair(tmp_path, tokenizer), Chat.said("Hello") if tokenizer.template else "Hello")
    assert (found.verdict, found.exit_code) == ("alike", 0)
    assert {row.status for row in found.rows} == {"alike"}
    assert rows_of(found, "alike").keys() >= {"vocabulary", "merges", "sample texts", "BOS", "EOS", "prompt"}


@pytest.mark.parametrize("tokenizer", [TOKENIZER, BOS])
def test_a_conversion_to_apr_keeps_all_of_it(tokenizer, tmp_path):
    for source in pair(tmp_path, tokenizer):
        assert run(["convert", str(source), "-o", str(tmp_path / "copy.apr"), "--force"]) == 0
        found = compared(source, tmp_path / "copy.apr", Chat.said("Hello"))
        assert {row.status for row in found.rows} == {"alike"}
        assert "chat one message" in rows_of(found, "alike")


@pytest.mark.parametrize(
    ("a", "b", "what", "words"),
    [
        (TOKENIZER, replace(TOKENIZER, add_bos=True), "BOS", "B alone puts 262 '<s>' before every text"),
        (BOS, replace(BOS, add_bos=False), "BOS", "A alone puts 262 '<s>' before every text"),
        (BOS, replace(BOS, bos="<|im_start|>"), "BOS", "A begins every text with 262 '<s>', B with 263 '<|im_start|>'"),
        (TOKENIZER, replace(TOKENIZER, eos="<s>"), "EOS", "a generation ends at another token"),
        (
            TOKENIZER,
            replace(TOKENIZER, pre="gpt-2"),
            "sample texts",
            "' 2' is [221, 18] (' ' '2') in A and [259] (' 2') in B",
        ),
        (
            TOKENIZER,
            replace(TOKENIZER, added=("<s>", "<|im_end|>", "<|im_start|>")),
            "vocabulary",
            "2 ids stand for other tokens: 263 is '<|im_start|>' in A and '<|im_end|>' in B, 264 is '<|im_end|>' in A",
        ),
        (
            TOKENIZER,
            replace(TOKENIZER, added=("<s>", "<|im_start|>", "<|im_end|>", "<x>")),
            "vocabulary",
            "1 tokens are on one side alone: 265 '<x>' in B",
        ),
        (TOKENIZER, replace(TOKENIZER, template=None), "chat template", "B has none; llama.cpp takes ChatML in its"),
        (
            TOKENIZER,
            replace(TOKENIZER, template=CHATML.replace("'\\n' + message", "'\\n ' + message")),
            "chat one message",
            "the rendered texts differ, in white space only: at character 17 A has '|im_start|>user\\nHello",
        ),
        (
            TOKENIZER,
            replace(TOKENIZER, template="{{ raise_exception('no') }}"),
            "chat one message",
            "A: rendered; B: it says: no",
        ),
        (
            BOS,
            replace(BOS, template="<s>" + WITH_BOS),
            "chat one message",
            "B begins with 262 '<s>' twice, A once",
        ),
    ],
)
def test_a_mistake_is_named(a, b, what, words, tmp_path):
    found = compared(*pair(tmp_path, a, b))
    assert (found.verdict, found.exit_code) == ("different", 1)
    assert words in rows_of(found, "different")[what]
    assert what in found.headline


def test_the_text_that_shows_other_ids_is_as_short_as_can_be(tmp_path):
    found = compared(*pair(tmp_path, TOKENIZER, replace(TOKENIZER, pre="gpt-2")))
    row = next(row for row in found.rows if row.what == "sample texts")
    assert row.example == {"text": " 2", "a": [221, 18], "b": [259]}
    assert rows_of(found, "different")["pre-tokenizer"] == "they cut words by other rules"


def test_names_of_rules_that_cut_alike_are_explained(tmp_path):
    files = [
        write_chat_gguf(tmp_path / f"{pre}.gguf", replace(TOKENIZER, pre=pre)) for pre in ("qwen2", "deepseek-r1-qwen")
    ]
    found = compared(*files)
    assert found.verdict == "alike"
    assert "sample texts make the same ids" in rows_of(found, "explained")["pre-tokenizer"]


def test_a_normalizer_that_llama_cpp_does_not_have_is_explained(tmp_path):
    found = compared(*pair(tmp_path, replace(TOKENIZER, normalizer="NFC"), TOKENIZER))
    assert found.exit_code == 0
    words = "'e\\u0301' is [128, 103] in A and [69, 137, 224] in B; llama.cpp normalizes nothing"
    assert rows_of(found, "explained") == {"normalizer": words}
    assert "once they are normalized" in rows_of(found, "alike")["sample texts"]


def test_a_token_that_llama_cpp_takes_for_special_by_its_text_is_explained(tmp_path):
    found = compared(*pair(tmp_path, replace(TOKENIZER, plain=("</s>",)), rows=266))
    words = "llama.cpp takes </s> for special by the text alone, and other engines go by the file"
    assert rows_of(found, "explained")["special by its text"] == words
    assert found.exit_code == 0


def test_templates_that_render_alike_are_explained(tmp_path):
    other = replace(TOKENIZER, template=CHATML.replace("{% endfor %}", "{% endfor  %}").replace("' + m", "'  + m"))
    found = compared(*pair(tmp_path, TOKENIZER, other))
    assert found.exit_code == 0
    words = "they differ in white space only; 3 conversations are fed alike, others were not tried"
    assert rows_of(found, "explained") == {"chat template": words}


def test_settings_of_tokenizer_json_and_of_its_config_that_contradict_are_told(tmp_path):
    hf, gguf = pair(tmp_path, TOKENIZER, replace(TOKENIZER, add_bos=True))
    config = json.loads((hf / "tokenizer_config.json").read_text())
    (hf / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": True}))
    found = compared(hf, gguf)
    assert "B alone puts" in rows_of(found, "different")["BOS"]
    assert "tokenizer_config.json of A says otherwise" in rows_of(found, "explained")["add_bos_token"]


def test_an_eos_that_the_other_side_stops_at_too_is_explained(tmp_path):
    hf, gguf = pair(tmp_path, TOKENIZER, replace(TOKENIZER, eos="<s>"))
    (hf / "generation_config.json").write_text(json.dumps({"eos_token_id": [264, 262]}))
    assert rows_of(compared(hf, gguf), "explained") == {"EOS": "that of B ends a generation of A too"}


def test_an_added_token_that_one_side_does_not_find_whole_is_shown_by_its_ids(tmp_path):
    keys = TOKENIZER.gguf()
    for name, change in (("plain", {263: 1}), ("user", {263: 4})):
        kinds = [change.get(n, kind) for n, kind in enumerate(keys["tokenizer.ggml.token_type"])]
        write_gguf(tmp_path / f"{name}.gguf", chat_model(), keys | {"tokenizer.ggml.token_type": kinds})
    hf = write_chat_folder(tmp_path / "hf", TOKENIZER, chat_model())
    found = compared(hf, tmp_path / "plain.gguf")
    assert rows_of(found, "different")["added tokens"] == "found whole on one side alone: 263 '<|im_start|>' in A"
    assert compared(hf, tmp_path / "user.gguf").exit_code == 0


def test_ids_without_a_row_and_padding_are_told(tmp_path):
    short = write_chat_gguf(tmp_path / "short.gguf", TOKENIZER, chat_model(rows=264))
    padded = [write_chat_gguf(tmp_path / f"{rows}.gguf", TOKENIZER, chat_model(rows=rows)) for rows in (272, 288)]
    found = compared(short, padded[0])
    words = "264 '<|im_end|>' has no row in the embedding of A, which ends at 263"
    assert rows_of(found, "different")["ids without a row"] == words
    assert "A alone" not in rows_of(found, "different")["embedding rows"]
    found = compared(*padded)
    assert found.exit_code == 0
    assert rows_of(found, "explained")["embedding rows"].startswith("B alone has rows 272 to 287")
    words = "rows 265 to 271 stand for no token; both hold the same values"
    assert rows_of(found, "alike")["padded rows"] == words
    other = write_chat_gguf(tmp_path / "other.gguf", TOKENIZER, chat_model(rows=272, seed=4))
    words = "rows 265 to 271 stand for no token; they differ by"
    assert rows_of(compared(padded[0], other), "explained")["padded rows"].startswith(words)


def test_fillers_of_a_converter_stand_for_nothing(tmp_path):
    keys = TOKENIZER.gguf()
    keys["tokenizer.ggml.tokens"] = [*TOKENIZER.tokens, "[PAD265]", "[PAD266]"]
    keys["tokenizer.ggml.token_type"] = [*keys["tokenizer.ggml.token_type"], 5, 5]
    write_gguf(tmp_path / "filled.gguf", chat_model(rows=267), keys)
    assert token_table(open_model(tmp_path / "filled.gguf")).count == 265
    hf = write_chat_folder(tmp_path / "hf", TOKENIZER, chat_model(rows=267))
    assert compared(hf, tmp_path / "filled.gguf").exit_code == 0


def test_positions_are_compared(tmp_path):
    model = chat_model()
    other = replace(model, config=replace(model.config, rope_theta=1e6, max_position_embeddings=17))
    a, b = (write_chat_gguf(tmp_path / f"{n}.gguf", TOKENIZER, m) for n, m in enumerate((model, other)))
    found = {row.what: row for row in compared(a, b).rows}
    assert found["rope_theta"].shown == ("10000", "1e+06")
    assert found["context length"].status == found["rope_theta"].status == "different"


def test_one_side_without_a_tokenizer_is_no_answer(tmp_path, capsys):
    tiny_gguf(tmp_path / "none.gguf")
    tiny_gguf(tmp_path / "bytes.gguf", vocabulary="bpe", vocab=300)
    assert run(["inspect", str(tmp_path / "none.gguf"), str(tmp_path / "none.gguf"), "--json"]) == 0
    capsys.readouterr()
    tiny_gguf(tmp_path / "bare.gguf", vocab=300)
    assert run(["inspect", str(tmp_path / "bytes.gguf"), str(tmp_path / "bare.gguf"), "--json"]) == 2
    record = json.loads(capsys.readouterr().out)
    assert record["verdict"] == "undecided"
    assert "B has none, so nothing says what it makes of a text" in record["error"]


def test_what_cannot_be_compared_is_told_and_the_rest_is_compared(tmp_path):
    hf, gguf = pair(tmp_path, TOKENIZER, replace(TOKENIZER, pre="klingon", eos="<s>"))
    found = compared(hf, gguf)
    assert "unknown pre-tokenizer klingon" in rows_of(found, "unknown")["sample texts"]
    assert rows_of(found, "alike").keys() >= {"vocabulary", "merges", "embedding rows"}
    (hf / "tokenizer.json").write_text('{"model": []}')
    assert "not laid out" in rows_of(compared(hf, gguf), "unknown")["vocabulary"]


def test_the_command_shows_a_table_differences_first(tmp_path, capsys):
    a, b = pair(tmp_path, TOKENIZER, replace(TOKENIZER, add_bos=True, template="\x1b[31m" + CHATML))
    assert run(["inspect", str(a), str(b), "--prompt", "Hello"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("A and B are fed differently: BOS, chat template, ")
    assert out.index("!  BOS") < out.index("=  vocabulary")
    assert "token 0 is 40 'H' in A and 262 '<s>' in B" in out
    assert "\x1b" not in out
    assert run(["inspect", str(a), str(b), "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    row = next(row for row in record["rows"] if row["what"] == "chat one message")
    assert (row["status"], row["example"]["b"][0]) == ("different", 262)
    assert record["a"]["format"] == "safetensors"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([MODEL, MODEL, MODEL], "one or two are inspected, not 3"),
        ([MODEL, MODEL, "--stats"], "--stats and --scope are of one trace"),
        ([MODEL, "--chat", "Hello"], "--chat is of two models"),
        ([MODEL, "nowhere.gguf"], "nowhere.gguf does not exist"),
    ],
)
def test_what_the_command_cannot_be_asked(arguments, words, capsys):
    assert run(["inspect", *map(str, arguments)]) == 2
    assert words in capsys.readouterr().err


def said_before(arguments, capsys):
    """The line on stderr before a comparison, and what follows it."""
    status = run(["compare", *map(str, arguments), "--no-local"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("workbench: before")]
    assert len(lines) <= 1
    return lines[0].removeprefix("workbench: before anything is run: ") if lines else None, status


def test_what_bears_on_the_tokens_is_said_in_one_line_before_they_are_run(tmp_path, capsys):
    a, b = pair(tmp_path, TOKENIZER, replace(TOKENIZER, added=("<s>", "<|im_end|>", "<|im_start|>"), add_bos=True))
    all_of_it = " (`workbench inspect A B` compares all)"
    words = "token 264 '<|im_end|>' of A is 264 '<|im_start|>' in B; B alone puts 262 '<s>' before every text"
    assert said_before([a, b, "--tokens", "40,264"], capsys) == (words + all_of_it, 0)
    assert said_before([a, a, "--tokens", "40,264"], capsys) == (None, 0)
    model = chat_model()
    other = replace(model, config=replace(model.config, rope_theta=1e6, max_position_embeddings=3))
    c = write_chat_gguf(tmp_path / "other.gguf", TOKENIZER, other)
    words = "rope_theta is 10000 in A and 1e+06 in B; B is made for 3 tokens, and 4 are run"
    assert said_before([a, c, "--prompt", "Hello"], capsys) == (words + all_of_it, 1)
    d = write_chat_gguf(tmp_path / "bare.gguf", replace(TOKENIZER, template=None))
    words = "bare.gguf has no chat template; both run what hf makes of the conversation"
    assert said_before([a, d, "--chat", "Hello"], capsys) == (words + all_of_it, 0)


def test_nothing_is_said_of_healthy_copies_and_of_copies_without_tokenizers(tmp_path, capsys):
    a, b = pair(tmp_path, TOKENIZER)
    for ways in (["--prompt", "Hello"], ["--chat", "Hello"], ["--tokens", "1,2"]):
        assert said_before([a, b, *ways], capsys) == (None, 0)
    tiny_gguf(tmp_path / "none.gguf", vocab=265)
    assert said_before([tmp_path / "none.gguf", tmp_path / "none.gguf", "--tokens", "1,2"], capsys) == (None, 0)
