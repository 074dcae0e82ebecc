"""What a user gives both sides to read: a text as it is, or a conversation that a chat template makes a text of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kernels.errors import WorkbenchError
from store.text import printable
from store.whole_files import read_bounded

_MAX_FILE = 1 << 22  # bytes of messages


class TokenizerError(WorkbenchError, ValueError):
    """A prompt that cannot be turned into token ids; --tokens always can.

    facts : what a program may want to know of it beside the sentence, as JSON values.
    """

    def __init__(self, sentence: str, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.facts = dict(facts or {})


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


Prompt = str | Chat
