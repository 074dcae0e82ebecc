"""Keys of one's own: what they may be called, which actions they are for, and that none does two things at once."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Any

from textual.binding import Binding, BindingsMap
from textual.keys import Keys, key_to_character

from store.nearest import did_you_mean
from store.text import printable
from workbench.app.actions import ACTIONS, EVERYWHERE, KEY_NAMES, SCREENS, Action, binding_id, of_screen

_MODIFIERS = frozenset({"ctrl", "shift", "alt"})
_AS_WRITTEN = {shown: name for name, shown in KEY_NAMES.items()} | {"return": "enter"}


@cache
def _named() -> frozenset[str]:
    return frozenset(key.value for key in Keys if not key.value.startswith("<")) | frozenset(KEY_NAMES)


class KeymapError(ValueError):
    """An entry of the table of keys that cannot be obeyed: where it stands in it, and why."""

    def __init__(self, sentence: str, *place: str) -> None:
        super().__init__(sentence)
        self.sentence, self.place = sentence, place


def checked_keys(table: object) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return what a file's table of keys says; KeymapError for the first entry that cannot be obeyed."""
    if not isinstance(table, dict):
        raise KeymapError('keys is a table of tables, such as [keys.map] with the line next = "n"')
    chosen: dict[tuple[str, str], tuple[str, ...]] = {}
    for screen, actions in table.items():
        if screen not in SCREENS:
            near = did_you_mean(screen, SCREENS, f"there are {', '.join(SCREENS)}")
            raise KeymapError(f"no screen is called {printable(screen, 60)}; {near}", screen)
        if not isinstance(actions, dict):
            raise KeymapError(f'keys.{screen} is a table of actions and keys, such as help = "?"', screen)
        known = [action.called for action in ACTIONS if action.screen == screen]
        for name, keys in actions.items():
            if name not in known:
                near = did_you_mean(name, known, "`workbench preferences` lists what there is")
                raise KeymapError(f"{screen} has no action {printable(name, 60)}; {near}", screen, name)
            chosen[screen, name] = _names(keys, screen, name)
    if chosen:
        _require_one_action_a_key(chosen)
    return chosen


def key_called(text: str) -> str | None:
    """Return Textual's name of a key that is written as itself, as on screen or by name; None if there is none."""
    *modifiers, last = text.split("+") if len(text) > 1 else [text]
    last = _AS_WRITTEN.get(last, last)
    whole = "+".join([*modifiers, last])
    if whole in _named():
        return whole
    if text in _AS_WRITTEN:
        return _AS_WRITTEN[text]
    if not set(modifiers) <= _MODIFIERS or not (last in _named() or _character(last)):
        return None
    return "+".join([*modifiers, "comma" if last == "," else _normal(last)])


def key_written(name: str) -> str:
    """Return a key as a file writes it, by Textual's name: as itself, where it has a character of its own."""
    shown = KEY_NAMES.get(name, "")
    return shown if len(shown) == 1 and shown.isascii() else _character(name) or name


def bound(screen: str, chosen: Mapping[tuple[str, str], tuple[str, ...]]) -> dict[str, list[Action]]:
    """Every key of a screen by Textual's name, and the actions that it is bound to: more than one is a clash."""
    keys: dict[str, list[Action]] = defaultdict(list)
    for action in of_screen(screen):
        usual = tuple(_normal(key) for key in action.keys.split(",") if key)
        for key in chosen.get((action.screen, action.called), usual):
            keys[key].append(action)
    return keys


def with_keys(action: Action, chosen: Mapping[tuple[str, str], tuple[str, ...]]) -> Action:
    """Return an action with the keys that were chosen for it, if any were."""
    keys = chosen.get((action.screen, action.called))
    return action if keys is None else action._replace(keys=",".join(keys))


def textual_keymap(chosen: Mapping[tuple[str, str], tuple[str, ...]]) -> dict[str, str]:
    """Return chosen keys as Textual takes them: by the names of bindings, on every screen that has them."""
    return {
        binding_id(screen, action): ",".join(chosen[action.screen, action.called])
        for screen in SCREENS
        for action in of_screen(screen)
        if (action.screen, action.called) in chosen
    }


def _names(keys: Any, screen: str, action: str) -> tuple[str, ...]:  # noqa: ANN401
    written = [keys] if isinstance(keys, str) else keys
    if not isinstance(written, list) or not written or not all(isinstance(key, str) for key in written):
        raise KeymapError(f'{action} takes a key or a list of keys, such as "n" or ["n", "f3"]', screen, action)
    names = [key_called(key) for key in written]
    for key, name in zip(written, names, strict=True):
        if name is None:
            near = did_you_mean(key, _named(), 'write it as itself, or by name: "x", "?", "ctrl+s", "pageup", "f3"')
            raise KeymapError(f"there is no key {printable(key, 60)}; {near}", screen, action)
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _require_one_action_a_key(chosen: Mapping[tuple[str, str], tuple[str, ...]]) -> None:
    for screen in SCREENS:
        for key, actions in bound(screen, chosen).items():
            of_user = [action for action in actions if (action.screen, action.called) in chosen]
            if len(actions) > 1 and of_user:
                mine = of_user[-1]
                other = next(action for action in actions if action is not mine)
                place = "" if other.screen == EVERYWHERE else f" of {screen}"
                shown = KEY_NAMES.get(key, key)
                raise KeymapError(
                    f"the key {shown} is bound twice: it is that of {other.called}{place} too; choose another for one",
                    mine.screen,
                    mine.called,
                )


def _character(name: str) -> str:
    """Return the character that a key types; empty where it types none that can be seen."""
    character = key_to_character(name) or ""
    return character if character.isprintable() and not character.isspace() else ""


def _normal(key: str) -> str:
    """Return Textual's name of a key that may be written as itself."""
    return next(iter(BindingsMap([Binding(key, "")])))[0]
