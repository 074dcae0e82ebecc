"""What a model is fed of a conversation, against transformers and llama.cpp (golden/chat.json); hostile templates."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from store.open import open_artifact
from store.tokenizer_config import TokenizerConfig, tokenizer_config
from tests.chat_models import CHATML, WITH_BOS, TinyTokenizer, chat_model, write_chat_folder, write_chat_gguf
from tests.golden.record_chat import CASES, CONVERSATIONS
from workbench.__main__ import run
from workbench.pair.chat import chat_ids, prompted, render
from workbench.pair.prompt import Chat, ChatError, TokenizerError
from workbench.pair.tokens import shared_tokens

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "chat.json").read_text(encoding="utf-8"))
HELLO = Chat.said("Hello")


def pair(folder, a: TinyTokenizer, b: TinyTokenizer | None = None):
    """A Hugging Face folder with the one tokenizer, a GGUF with the other."""
    write_chat_folder(folder / "hf", a)
    write_chat_gguf(folder / "model.gguf", b or a)
    return [open_artifact(folder / "hf"), open_artifact(folder / "model.gguf")]


def rendered(template: str, chat: Chat = HELLO):
    return render(TokenizerConfig({"bos_token": "<s>"}, template), [chat], datetime(2026, 11, 3))[0]


@pytest.mark.parametrize("name", CASES)
def test_a_conversation_is_fed_as_its_engine_feeds_it(name, tmp_path):
    recorded = GOLDEN[name]
    hf, gguf = pair(tmp_path, TinyTokenizer(CASES[name], add_bos=name == "bos"))
    for n, messages in enumerate(CONVERSATIONS):
        chat = Chat(tuple(messages))
        found = prompted(hf, chat)
        assert (found.text, list(found.ids)) == (recorded["texts"][n], recorded["ids"][n])
        found = prompted(gguf, chat)
        assert (found.text, list(found.ids)) == (recorded["texts"][n], recorded["llama_cpp"][n])


def test_bos_is_fed_once_where_template_and_tokenizer_both_have_it(tmp_path):
    both = TinyTokenizer(WITH_BOS, add_bos=True)
    bos = both.tokens.index("<s>")
    for model in pair(tmp_path, both):
        assert [n for n, token in enumerate(prompted(model, HELLO).ids) if token == bos] == [0]
    twice = shared_tokens(pair(tmp_path / "twice", replace(both, template="<s>" + WITH_BOS)), None, HELLO)
    assert twice.ids[:2] == (bos, bos)
    assert "begins with BOS (262 '<s>') twice: the chat template writes it once too often" in twice.notes[0]
    typed = shared_tokens(pair(tmp_path / "typed", both), None, "<s>Hello")
    assert "the tokenizer adds it, and the text has it already" in typed.notes[0]


def test_bos_that_is_fed_twice_is_said_of_one_model_too(tmp_path, capsys):
    model = pair(tmp_path, TinyTokenizer(WITH_BOS, add_bos=True))[1]
    assert run(["trace", str(model.path), "--stats", "--prompt", "<s>Hello", "--json"]) == 0
    err = capsys.readouterr().err
    assert (
        "workbench: before anything is run: the prompt begins with BOS (262 '<s>') twice: the tokenizer adds it" in err
    )


def test_a_side_that_doubles_bos_is_named(tmp_path):
    right = TinyTokenizer(WITH_BOS, add_bos=True)
    models = pair(tmp_path, right, replace(right, template="<s>" + WITH_BOS))
    with pytest.raises(TokenizerError, match="as B begins with 262 '<s>' twice, the other once"):
        shared_tokens(models, None, HELLO)


def test_a_side_that_alone_adds_bos_is_named(tmp_path):
    models = pair(tmp_path, TinyTokenizer(), TinyTokenizer(add_bos=True))
    for prompt in ("Hello", HELLO):  # transformers takes a rendered text as it is, llama.cpp adds what it adds to any
        with pytest.raises(TokenizerError, match="as B begins with 262 '<s>' and the other does not"):
            shared_tokens(models, None, prompt)


def test_templates_that_write_other_texts_are_named_with_the_place(tmp_path):
    models = pair(tmp_path, TinyTokenizer(), TinyTokenizer(CHATML.replace("\\n", " \\n", 1)))
    with pytest.raises(TokenizerError, match=r"A '.*user\\nHel.*', B '.*user \\nHe.*', at character 16") as caught:
        shared_tokens(models, None, HELLO)
    assert caught.value.facts["verdict"] == "uncomparable"


def test_the_template_of_one_side_serves_both_where_the_other_has_none(tmp_path):
    models = pair(tmp_path, TinyTokenizer(), TinyTokenizer(None))
    found = shared_tokens(models, None, HELLO)
    assert list(found.ids) == chat_ids(models[0], "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    assert found.notes == ("model.gguf has no chat template; both run what hf makes of the conversation",)
    with pytest.raises(ChatError, match=r"hf and model\.gguf have no chat template; give --prompt"):
        shared_tokens(pair(tmp_path / "none", TinyTokenizer(None)), None, HELLO)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ 'a' * 10**10 }}", "memory"),
        ("{{ '{:>999999999}'.format(1) }}", "memory"),
        ("{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}", "more than 1048576 characters"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "it takes too long"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deeply"),
        ("{{ messages.__class__.__mro__ }}", "no template may have"),
        ("{{ cycler.__init__.__globals__.os.system('id') }}", "no template may have"),
        ("{{ namespace(__class__=1) }}", "no name like __class__"),
        ("{{ messages.append(1) }}", "no template may have"),
        ("{{ messages[0].update(role='system') }}", "no template may have"),
        ("{% include 'config.json' %}", "no loader"),
        ("{{ raise_exception('no \x1b[31msystem') }}", "it says: no \x1b"),
        ("{% if", "line 1"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("a" * (1 << 21), "more than any template needs"),
    ],
)
def test_a_hostile_template_is_refused_in_a_sentence(template, why):
    found = rendered(template)
    assert why in found.refusal
    assert found.text == ""


def test_what_a_template_refuses_is_told_with_the_file_and_no_escape(tmp_path, capsys):
    write_chat_folder(tmp_path / "hf", TinyTokenizer("{{ raise_exception('no \x1b[31msystem') }}"))
    assert run(["trace", str(tmp_path / "hf"), "--stats", "--chat", "Hello"]) == 2
    err = capsys.readouterr().err
    assert err == (
        "workbench: hf: its chat template renders nothing: it says: no \\x1b[31msystem; give --prompt instead of "
        "--chat\n"
    )


def test_the_date_is_the_callers():
    assert rendered("{{ strftime_now('%d %b %Y') }}").text == "03 Nov 2026"


def test_what_chat_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Chat.said("read config.json").messages == ({"role": "user", "content": "read config.json"},)
    turns = [{"role": "user", "content": "a", "tool_calls": None}, {"role": "assistant", "content": "b"}]
    (tmp_path / "turns.json").write_text(json.dumps(turns))
    (tmp_path / "more.json").write_text(json.dumps({"messages": turns, "tools": [{"name": "f"}]}))
    assert Chat.said("turns.json").messages == ({"role": "user", "content": "a"}, turns[1])
    assert Chat.said(str(tmp_path / "more.json")).tools == ({"name": "f"},)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("[1]", "neither a list of messages"),
        ("[]", "holds no message"),
        ('[{"content": "a"}]', "without a role"),
        ('{"messages": [{"role": "user"}], "model": "gpt"}', "neither a list of messages"),
        ("[" * 99999, "no JSON"),
        ("\xff", "no JSON"),
    ],
)
def test_a_file_that_holds_no_messages_is_refused(content, words, tmp_path, capsys):
    file = tmp_path / "messages.json"
    if content is not None:
        file.write_text(content, encoding="latin-1")
    assert run(["trace", "model.gguf", "--stats", "--chat", str(file)]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "messages.json" in err
    assert err.count("\n") == 1


def test_commands_run_a_conversation(tmp_path, capsys):
    a, b = map(str, (m.path for m in pair(tmp_path, TinyTokenizer())))
    assert run(["compare", a, b, "--chat", "Hello", "--no-local", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["tokens"] == list(prompted(open_artifact(a), HELLO).ids)
    assert record["prompt"] == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert run(["compare", a, b, "--chat", "Hello", "--tokens", "1"]) == 2
    assert "--tokens and --chat were both given" in capsys.readouterr().err


def test_special_tokens_and_template_are_found_in_every_place(tmp_path):
    folder = write_chat_folder(tmp_path / "hf", TinyTokenizer())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    config |= {"chat_template": several, "eos_token": {"content": "</s>"}, "bos_token": None, "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "old"}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    found = tokenizer_config(open_artifact(folder))
    assert (found.chat_template, found.special["bos_token"], found.special["eos_token"]) == ("yes", "<s>", "</s>")
    assert (found.eos_ids, found.add_bos) == ((7, 9), True)
    (folder / "chat_template.jinja").write_text("first")
    assert tokenizer_config(open_artifact(folder)).chat_template == "first"


def test_a_padded_model_is_fed_alike(tmp_path):
    write_chat_gguf(tmp_path / "model.gguf", TinyTokenizer(), chat_model(rows=272))
    assert prompted(open_artifact(tmp_path / "model.gguf"), HELLO).ids[0] == 263
