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
import references
import times
from cache import Image


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
            "`keep` is 0 and `used-within` is not set, which would remove every image that nothing uses: "
            "set `keep` to at least 1, or set `used-within`"
        )
    ranks: dict[str, int] = {}
    for image in sorted(cache.images(), key=newest_first):
        reference = image.handle.reference
        repository = references.repository(reference)
        # An image without a creation date has no place among the others.
        rank = None
        if image.handle.created_at is not None:
            rank = ranks[repository] = ranks.get(repository, 0) + 1
        decision = decide(settings, now, image, repository, rank)
        if decision.remove:
            cache.remove_because(reference, decision.reason)
        else:
            report.explain(reference, decision.reason)


def newest_first(image: Image) -> tuple[bool, int, int, str]:
    """By creation, the newest first and those without a date last; of one instant, by reference."""
    created = image.handle.created_at
    if created is None:
        return (True, 0, 0, image.handle.reference)
    return (False, -created.seconds, -created.nanoseconds, image.handle.reference)


def decide(
    settings: config.Config, now: Datetime, image: Image, repository: str, rank: Optional[int]
) -> Decision:
    """What becomes of the image that is the `rank`th newest of its repository, counted from 1."""
    holder = held_by(image.usage)
    if holder is not None:
        return Decision(False, holder)
    if rank is None:
        return Decision(False, f"has no creation date, so its place in {repository} is unknown")
    keep, within = settings
    if rank <= keep:
        among = "the newest of" if keep == 1 else f"one of the {keep} newest of"
        return Decision(False, f"{among} {repository}")
    place = f"{ordinal(rank)} newest of {repository}"
    if within is None:
        return Decision(True, f"{place}, of which {keep} {'is' if keep == 1 else 'are'} kept")
    # An instant in the future has no age: it counts as just used.
    age = times.age(touched_at(image.handle), now)
    remove = age is not None and age > within
    verb = "never used and created" if image.handle.last_used_at is None else "last used"
    when = "in the future" if age is None else f"{times.write(age)} ago"
    outcome = "longer than" if remove else "within"
    return Decision(remove, f"{place}, {verb} {when}, which is {outcome} {times.write(within)}")


def touched_at(handle: ImageHandle) -> Datetime:
    """When an image that has a creation date was last of use to anyone."""
    if handle.last_used_at is not None:
        return handle.last_used_at
    assert handle.created_at is not None
    return handle.created_at


def held_by(usage: ImageUsage) -> Optional[str]:
    """Why nobody should even try to remove an image."""
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
