"""What a model is fed of a conversation: its chat template rendered, and the token ids that its engine makes of that.

transformers' `apply_chat_template` takes the rendered text as it is; llama.cpp takes away the BOS token that a template
writes where its tokenizer adds one anyhow (common/chat.cpp, 2026-10). Both parse special tokens in the text.
"""

import json
import signal
import subprocess
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from store.stored_model import StoredModel
from store.text import printable
from store.tokenizer_config import MAX_TEMPLATE, TokenizerConfig, tokenizer_config
from workbench.machine.asking import ask
from workbench.machine.endings import how_it_ended
from workbench.pair.prompt import Chat, ChatError
from workbench.pair.tokenizer import encode, encode_all, put_around

_PATIENCE = 30.0  # seconds on the clock; of the processor's the process gives itself far less


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
