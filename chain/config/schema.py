"""The JSON Schema of `chain.yaml`, for editors; generated from the models.

It describes the file, not the loaded values: durations and sizes are text with a unit, and every
scalar may be a `${NAME}` instead. What needs more than one value (names that are unique) or the
world (files, the environment) only `load_config` checks.
"""

from __future__ import annotations

from typing import Any

from chain.config.models import Config

_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_SAID_OF_A_FIELD = ("title", "description", "default")


def config_schema() -> dict[str, Any]:
    schema = Config.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        section["properties"] = {name: _or_variable(field) for name, field in section["properties"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "chain.yaml of geochain",
    }


def _or_variable(field: dict[str, Any]) -> dict[str, Any]:
    """The same field, where a scalar may also be written as `${NAME}`."""
    field = {key: value for key, value in field.items() if key != "title"}
    if "$ref" in field or field.get("type") == "array":
        return field
    said = {key: field.pop(key) for key in _SAID_OF_A_FIELD if key in field}
    forms = field.get("anyOf", [field])
    return {**said, "anyOf": [*forms, _VARIABLE]}
