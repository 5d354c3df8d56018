"""Removes what was not used for a time.

There is no `print`, which traps: `report.log` takes its place.
"""

import json

import wit_world.exports
from componentize_py_types import Err
from wit_world.exports.policy import Description, Request
from wit_world.imports import images, report, types, usage
from wit_world.imports.types import Datetime, ImageHandle

CONFIG_SCHEMA = {
    "type": "object",
    "properties": {
        "max-age-days": {
            "type": "integer",
            "minimum": 0,
            "maximum": 4294967295,
            "default": 30,
            "description": "What was not used for more days than this is removed.",
        }
    },
    "additionalProperties": False,
}


class Policy(wit_world.exports.Policy):
    """What the component exports."""

    def describe(self) -> Description:
        return Description(
            name="@NAME@",
            version="0.1.0",
            summary="Removes what was not used for a time.",
            config_schema=json.dumps(CONFIG_SCHEMA),
        )

    def evaluate(self, request: Request) -> None:
        # `Err` is the error of the run; any other exception is a trap.
        limit = read_config(request.config)
        # Usages are in the order of the images.
        images_and_usages = list(zip(images.list(), usage.get_usage(None)))
        # The oldest first: a run with a goal ends as soon as that is met.
        for handle, used in reversed(images_and_usages):
            is_old, reason = decide(handle, used, request.now, limit)
            if is_old:
                remove_because(handle.reference, reason)
            else:
                report.explain(handle.reference, reason)


def read_config(document: str) -> int:
    config = json.loads(document)
    limit = config.pop("max-age-days", 30)
    if config:
        raise Err(f"config of @NAME@: unknown key `{min(config)}`: the only key is `max-age-days`")
    if type(limit) is not int or not 0 <= limit < 2**32:
        raise Err("config of @NAME@: `max-age-days`: expected a whole number of days")
    return limit


def decide(handle: ImageHandle, used: usage.ImageUsage, now: Datetime, limit: int) -> tuple[bool, str]:
    """Tells whether an image is removed, and why."""
    if used.sandboxes > 0 or used.snapshots > 0:
        return False, "in use"
    if used.pinned:
        return False, "pinned by the operator"
    # An arrival counts as a use.
    instants = [instant for instant in (handle.last_used_at, handle.arrived_at) if instant is not None]
    if not instants:
        return False, "neither a last use nor an arrival is recorded"
    days = min(days_since(instant, now) for instant in instants)
    is_old = days > limit
    return is_old, f"not used for {days}d, which is {'longer than' if is_old else 'within'} {limit}d"


def days_since(instant: Datetime, now: Datetime) -> int:
    """Returns whole days: 0 for an instant in the future."""
    seconds = now.seconds - instant.seconds - (instant.nanoseconds > now.nanoseconds)
    return max(seconds, 0) // 86400


def remove_because(reference: str, reason: str) -> None:
    """Removes an image, or explains why it may not be removed. Beyond a cap of the grant, the whole plan is refused."""
    try:
        images.remove(reference, False)
    except Err as failure:
        match failure.value:
            case types.Error_Denied(denial) if denial.right == types.Right.BUDGET:
                raise Err(denial.message) from None
            case types.Error_Denied(denial) if denial.right == types.Right.PROTECTED:
                reason += "; kept because the operator protects it"
            case types.Error_Denied():
                reason += "; kept because the grant does not let this policy remove it"
            case types.Error_ImageInUse():
                reason += "; kept because something uses it"
            case _:
                raise Err(f"{reference} could not be removed") from None
    report.explain(reference, reason)
