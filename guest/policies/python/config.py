"""What the operator configures."""

import json
from typing import Any, NamedTuple, Optional

import times
from times import Age

NAME = "keep-recent-python"

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "additionalProperties": False,
    "description": "What the operator configures.",
    "properties": {
        "keep": {
            "default": 3,
            "description": "How many images of each repository are kept, those that arrived last.",
            "format": "uint32",
            "minimum": 0,
            "type": "integer",
        },
        "used-within": {
            "default": None,
            "description": "What was used or arrived within this time is kept, too.",
            "examples": ["30d", "12h", "1w2d"],
            "pattern": "^([0-9]+[wdhms])+$",
            "type": ["string", "null"],
        },
    },
    "title": "Config",
    "type": "object",
}


class Config(NamedTuple):
    """What the operator configures."""

    keep: int = 3
    used_within: Optional[Age] = None


class ConfigError(Exception):
    """A config that does not conform: a sentence for the operator."""


class Float(NamedTuple):
    """A number with a point or an exponent, as it is written."""

    literal: str


def schema() -> str:
    """The schema of a config, as JSON."""
    return json.dumps(SCHEMA)


def parse(document: str) -> Config:
    """Reads a config; every error names the policy and the key."""
    try:
        config = json.loads(document, parse_float=Float)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise ConfigError(f"config of {NAME}: expected a JSON object")
    unknown = sorted(config.keys() - SCHEMA["properties"].keys())
    if unknown:
        raise ConfigError(
            f"config of {NAME}: unknown key `{unknown[0]}`: the keys are `keep` and `used-within`"
        )
    keep = read_keep(config["keep"]) if "keep" in config else Config().keep
    return Config(keep, read_used_within(config.get("used-within")))


def read_keep(value: Any) -> int:
    # For Python, `true` is an integer.
    if not isinstance(value, int) or isinstance(value, bool):
        raise refused("keep", "type", value, "u32")
    if not 0 <= value < 2**32:
        raise refused("keep", "value", value, "u32")
    return value


def read_used_within(value: Any) -> Optional[Age]:
    if value is None:
        return None
    if not isinstance(value, str):
        raise refused("used-within", "type", value, "a string")
    try:
        return times.parse(value)
    except times.AgeError as error:
        raise ConfigError(f"config of {NAME}: `used-within`: `{value[:40]}` is {error}") from None


def refused(key: str, what: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"config of {NAME}: `{key}`: invalid {what}: {describe(value)}, expected {expected}")


def describe(value: Any) -> str:
    """What a value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case Float(literal):
            return f"floating point `{literal}`"
        case str():
            return f"string {quoted(value)}"
        case list():
            return "sequence"
        case _:
            return "map"


def quoted(text: str) -> str:
    """A string in quotes, with what cannot be seen escaped."""
    named = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}

    def escape(c: str) -> str:
        return named.get(c) or (f"\\u{{{ord(c):x}}}" if c < " " or c == "\x7f" else c)

    return f'"{"".join(map(escape, text))}"'
