"""What a model is fed of a conversation: its chat template rendered, and the token ids that its engine makes of that.

transformers' `apply_chat_template` takes the rendered text as it is; llama.cpp takes away the BOS token that a template
writes where its tokenizer adds one anyhow (common/chat.cpp, 2026-10). Both parse special tokens in the text.
"""

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from store.stored_model import StoredModel
from store.text import printable
from store.tokenizer_config import MAX_TEMPLATE, TokenizerConfig, tokenizer_config
from store.whole_files import read_bounded
from workbench.machine.asking import ask
from workbench.machine.endings import how_it_ended
from workbench.pair.tokenizer import TokenizerError, encode, encode_all, put_around

_PATIENCE = 30.0  # seconds on the clock; of the processor's the process gives itself far less
_MAX_FILE = 1 << 22  # bytes of messages


class ChatError(TokenizerError):
    """A conversation that a model's template makes no text of."""


class Chat(NamedTuple):
    """A conversation: messages as chat templates take them, and tools that the model may call, if any."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def said(cls, value: str) -> "Chat":
        """Return what `--chat` means: a text is one message of the user, a name that ends in .json a file of messages.

        The file holds a list of messages with `role` and `content`, or an object with `messages` and perhaps `tools`.
        ChatError for a file that holds something else; a text with spaces is a file only if there is one.
        """
        path = Path(value)
        if value.endswith(".json") and (" " not in value or path.is_file()):
            return cls._read(path)
        return cls(({"role": "user", "content": value},))

    @classmethod
    def _read(cls, path: Path) -> "Chat":
        shown = printable(str(path), 1000)
        try:
            content = json.loads(read_bounded(path.resolve(), _MAX_FILE).decode("utf-8"))
        except OSError as error:
            raise ChatError(f"{shown} cannot be read ({(error.strerror or str(error)).lower()})") from None
        except (ValueError, RecursionError):
            raise ChatError(f"{shown} is no JSON in UTF-8; --chat takes a text, or a JSON file of messages") from None
        if not isinstance(content, dict):
            content = {"messages": content}
        messages, tools = content.get("messages"), content.get("tools", [])
        if content.keys() - {"messages", "tools"} or not _are_objects(messages) or not _are_objects(tools):
            raise ChatError(
                f"{shown} is neither a list of messages nor an object with messages (and tools); a message is an "
                'object such as {"role": "user", "content": "Hello"}'
            )
        if not messages or not all(isinstance(message.get("role"), str) for message in messages):
            raise ChatError(f"{shown} holds no message, or one without a role; each needs a role and its content")
        plain = ({key: value for key, value in message.items() if value is not None} for message in messages)
        return cls(tuple(plain), tuple(tools))

    @property
    def variables(self) -> dict[str, Any]:
        """What a template gets of it."""
        return {"messages": list(self.messages), "tools": list(self.tools) or None}


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


class Rendered(NamedTuple):
    """What a template makes of one conversation: a text, or in a sentence why it makes none."""

    text: str
    refusal: str | None = None


def render(config: TokenizerConfig, chats: Sequence[Chat], now: datetime) -> list[Rendered]:
    """Render a chat template for several conversations, each with the generation prompt; without one WorkbenchError.

    A template is a program of strangers: it runs in a sandbox, in a process with limits. now : what it takes for the
    time.
    """
    template = config.chat_template
    if template is None:
        raise ChatError("there is no chat template")
    if len(template) > MAX_TEMPLATE:
        return [Rendered("", f"it has {len(template)} characters, more than any template needs")] * len(chats)
    job = {
        "template": template,
        "variables": dict(config.special),
        "conversations": [chat.variables for chat in chats],
        "now": now.isoformat(),
    }
    try:
        done = ask("workbench.pair.template_process", job, _PATIENCE)
    except subprocess.TimeoutExpired:
        return [Rendered("", "it takes too long")] * len(chats)
    if done.returncode != 0:
        too_long = done.returncode == -getattr(signal, "SIGXCPU", 0)
        why = "it takes too long" if too_long else f"the process that renders it {how_it_ended(done.returncode)}"
        return [Rendered("", why)] * len(chats)
    return [Rendered(answer.get("text", ""), answer.get("error")) for answer in json.loads(done.stdout)]


class Prompted(NamedTuple):
    """What a model is fed of a conversation: the rendered text, and its token ids with BOS and EOS as they are fed."""

    text: str
    ids: tuple[int, ...]


def prompted(model: StoredModel, chat: Chat, template_of: StoredModel | None = None) -> Prompted:
    """Render a conversation as a model's files say, and make token ids of it as its engine does.

    template_of : the model whose template is taken where another one has none. ChatError, with the name of the file,
    where there is no template or it refuses the conversation; TokenizerError where the text cannot be tokenized.
    """
    source = template_of or model
    config = tokenizer_config(source)
    name = printable(source.path.name)
    if config.chat_template is None:
        raise ChatError(f"{name} has no chat template; give --prompt instead of --chat")
    rendered = render(config, [chat], datetime.now())
    if rendered[0].refusal is not None:
        why = printable(rendered[0].refusal, 400)
        raise ChatError(f"{name}: its chat template renders nothing: {why}; give --prompt instead of --chat")
    return Prompted(rendered[0].text, tuple(chat_ids(model, rendered[0].text)))


def chat_ids(model: StoredModel, text: str) -> list[int]:
    """Return the token ids of a rendered conversation as a model's engine makes them; see the top of this file."""
    if model.format == "safetensors":
        return encode(model, text, around=False)
    config, (before, behind) = tokenizer_config(model), put_around(model)
    bos, eos = config.special.get("bos_token"), config.special.get("eos_token")
    if before and bos:
        text = text.removeprefix(bos)
    if behind and eos:
        text = text.removesuffix(eos)
    return encode_all(model, [text], around=True)[0]
