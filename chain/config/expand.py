"""`${NAME}` and `${NAME:-default}` in the text of one value.

A variable that is unset or empty takes the default, as in a shell. `$${` stands for `${`. What comes
out is text and is never parsed again: a variable can't bring keys or structure into the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<body>[^}]*)(?P<end>\}?)")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)


def expand(text: str, env: Mapping[str, str]) -> str:
    """ValueError names the variable that is unset, or says what can't be read as a reference."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        body = _BODY.fullmatch(match["body"])
        if not match["end"] or body is None or "${" in match["body"]:
            raise ValueError(
                "has a '${' that is not ${NAME} or ${NAME:-default}; write $${ for the text '${'"
            )
        name, default = body["name"], body["default"]
        found = env.get(name)
        if default is not None and not found:
            return default[2:]
        if found is None:
            raise ValueError(f"the variable {name} is not set; set it, or write ${{{name}:-default}}")
        if not is_text(found):
            raise ValueError(f"the variable {name} is not UTF-8")
        return found

    return _REFERENCE.sub(value, text)


def is_text(value: str) -> bool:
    """False for lone surrogates: bytes of the environment, or escapes, that are no characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
