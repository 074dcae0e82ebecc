"""The JSON Schema of a file of preferences, from the tables that the program goes by.

`python -m tests.preferences_schema` writes it where the package has it.
"""

import json
from typing import Any

from workbench.app.actions import ACTIONS, SCREENS
from workbench.app.preferences.writing import SCHEMA
from workbench.cells.metrics import METRICS


def schema() -> dict[str, Any]:
    key = {"type": "string", "minLength": 1}
    actions = {
        screen: {action.called: {"$ref": "#/$defs/keys"} for action in ACTIONS if action.screen == screen}
        for screen in SCREENS
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Preferences of layer-workbench",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "theme": {"type": "string", "description": "Colours, by a name of the palette's Theme."},
            "metric": {"enum": list(METRICS), "description": "What the map of a new session opens on."},
            "prompt": {
                "type": "string",
                "minLength": 1,
                "maxLength": 16384,
                "description": "What two models run where neither a prompt nor tokens are given.",
            },
            "keys": {
                "type": "object",
                "description": "Keys by screen and action; no key may do two things on one screen.",
                "additionalProperties": False,
                "properties": {
                    screen: {"type": "object", "additionalProperties": False, "properties": properties}
                    for screen, properties in actions.items()
                },
            },
        },
        "$defs": {
            "keys": {
                "description": 'A key as itself ("n", "?") or by name ("ctrl+s", "pageup", "f3"); or a list of keys.',
                "oneOf": [key, {"type": "array", "items": key, "minItems": 1}],
            }
        },
    }


def written() -> str:
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(written(), encoding="utf-8")
