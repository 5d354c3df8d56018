"""Keeps the newest images of each repository and what was used of late, and removes the rest."""

from typing import NamedTuple, Optional

import wit_world.exports
from componentize_py_types import Err
from wit_world.exports.policy import Description, Request
from wit_world.imports import report
from wit_world.imports.types import Datetime, ImageHandle
from wit_world.imports.usage import ImageUsage

import cache
import config
import times
from cache import Image
from times import Age


class Policy(wit_world.exports.Policy):
    """What the component exports."""

    def describe(self) -> Description:
        return Description(
            name=config.NAME,
            version="0.1.0",
            summary="Keeps the newest images of each repository and what was used of late, and removes the rest.",
            config_schema=config.schema(),
        )

    def evaluate(self, request: Request) -> None:
        try:
            evaluate(config.parse(request.config), request.now)
        except (config.ConfigError, cache.CallError) as error:
            # The error of the run; any other exception is a trap.
            raise Err(str(error)) from None


class Decision(NamedTuple):
    """What becomes of an image."""

    remove: bool
    reason: str


def evaluate(settings: config.Config, now: Datetime) -> None:
    """Decides about every image."""
    if settings.keep == 0 and settings.used_within is None:
        raise config.ConfigError(
            f"config of {config.NAME}: `keep` is 0 and `used-within` is not set, which would remove every image that nothing uses: "
            "set `keep` to at least 1, or set `used-within`"
        )
    images = sorted(cache.images(), key=newest_first)
    ranks = ranks_of(images)
    # The oldest first: a run with a goal ends as soon as that is met.
    for image, rank in zip(reversed(images), reversed(ranks)):
        reference = image.handle.reference
        decision = decide(settings, now, image, rank)
        if decision.remove:
            cache.remove_because(reference, decision.reason)
        else:
            report.explain(reference, decision.reason)


def newest_first(image: Image) -> tuple[bool, int, int, str]:
    """Sorts by arrival, the newest first and those without one last; those of one instant by reference."""
    arrived = image.handle.arrived_at
    if arrived is None:
        return (True, 0, 0, image.handle.reference)
    return (False, -arrived.seconds, -arrived.nanoseconds, image.handle.reference)


def ranks_of(newest_first: list[Image]) -> list[Optional[int]]:
    """Returns the place of each image among those of its repository, counted from 1; none without an arrival."""
    counts: dict[str, int] = {}
    ranks: list[Optional[int]] = []
    for image in newest_first:
        rank = None
        if image.handle.arrived_at is not None:
            rank = counts[image.handle.repository] = counts.get(image.handle.repository, 0) + 1
        ranks.append(rank)
    return ranks


def decide(settings: config.Config, now: Datetime, image: Image, rank: Optional[int]) -> Decision:
    """Decides about the image that is the `rank`th newest of its repository, counted from 1."""
    repository = image.handle.repository
    holder = held_by(image.usage)
    if holder is not None:
        return Decision(False, holder)
    if rank is None:
        return Decision(False, f"its arrival is not recorded, so its place in {repository} is unknown")
    keep, within = settings
    if rank <= keep:
        among = "the newest of" if keep == 1 else f"one of the {keep} newest of"
        return Decision(False, f"{among} {repository}")
    place = f"{ordinal(rank)} newest of {repository}"
    if within is None:
        return Decision(True, f"{place}, of which {keep} {'is' if keep == 1 else 'are'} kept")
    touched, age = last_touched(image.handle, now)
    remove = age is not None and age > within
    outcome = "longer than" if remove else "within"
    return Decision(remove, f"{place}, {touched}, which is {outcome} {times.write(within)}")


def last_touched(handle: ImageHandle, now: Datetime) -> tuple[str, Optional[Age]]:
    """Returns the last use or arrival of an image in words, whichever is later, and how long ago it was.

    An instant in the future has no age: it counts as just now.
    """
    verb, touched = "last used", handle.last_used_at
    if touched is None:
        verb, touched = "never used and arrived", handle.arrived_at
    elif handle.arrived_at is not None and instant(handle.arrived_at) > instant(touched):
        verb, touched = "arrived", handle.arrived_at
    assert touched is not None
    age = times.age(touched, now)
    return f"{verb} in the future" if age is None else f"{verb} {times.write(age)} ago", age


def instant(at: Datetime) -> tuple[int, int]:
    """Returns an instant as what can be compared."""
    return (at.seconds, at.nanoseconds)


def held_by(usage: ImageUsage) -> Optional[str]:
    """Returns why no policy should remove an image."""
    users = []
    if usage.sandboxes > 0:
        users.append("1 sandbox" if usage.sandboxes == 1 else f"{usage.sandboxes} sandboxes")
    if usage.snapshots > 0:
        users.append("1 snapshot" if usage.snapshots == 1 else f"{usage.snapshots} snapshots")
    if users:
        return f"in use by {' and '.join(users)}"
    return "pinned by the operator" if usage.pinned else None


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, …"""
    if number // 10 % 10 == 1:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
