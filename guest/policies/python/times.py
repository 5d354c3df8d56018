"""Instants and lengths of time."""

import re
from typing import NamedTuple, Optional

from wit_world.imports.types import Datetime

# The longest first. Weeks are read, never written.
UNITS = [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)]

MOST_SECONDS = 2**64 - 1

PART = re.compile("([0-9]+)([a-z])")


class Age(NamedTuple):
    """A length of time, never negative."""

    seconds: int
    nanoseconds: int = 0


class AgeError(Exception):
    """A length of time that cannot be read: why, without the text itself."""


def parse(text: str) -> Age:
    """Reads `30d`, `12h`, `90m` or `1w2d`: each unit at most once, the longer ones first."""
    seconds, at, units = 0, 0, UNITS
    while True:
        part = PART.match(text, at)
        names = [name for name, _ in units]
        if part is None or part[2] not in names:
            raise AgeError(
                "not a length of time: expected a number and a unit, such as `30d`, `12h`, `90m` or `1w2d`"
            )
        index = names.index(part[2])
        # More digits than a number of seconds can have are not worth reading.
        digits = part[1].lstrip("0")
        seconds += int(digits[:21] or "0") * units[index][1]
        if seconds > MOST_SECONDS:
            raise AgeError("too long a time")
        at, units = part.end(), units[index + 1 :]
        if at == len(text):
            return Age(seconds)


def write(age: Age) -> str:
    """The two largest units that are not zero, such as `12d4h`; less than a second is `0s`."""
    parts, rest = [], age.seconds
    for name, length in UNITS[1:]:
        count, rest = divmod(rest, length)
        if count > 0:
            parts.append(f"{count}{name}")
    return "".join(parts[:2]) or "0s"


def age(at: Datetime, now: Datetime) -> Optional[Age]:
    """How long ago an instant was; none where it lies in the future."""
    nanoseconds = (now.seconds - at.seconds) * 10**9 + now.nanoseconds - at.nanoseconds
    return Age(*divmod(nanoseconds, 10**9)) if nanoseconds >= 0 else None
