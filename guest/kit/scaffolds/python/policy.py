"""Removes what nobody used for a time.

There is no `print`, which traps: `report.log` takes its place.
"""

import json
from typing import Optional

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
            "description": "What was not used for more days than this goes.",
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
            summary="Removes what nobody used for a time.",
            config_schema=json.dumps(CONFIG_SCHEMA),
        )

    def evaluate(self, request: Request) -> None:
        # `Err` is the error of the run; any other exception is a trap.
        limit = read_config(request.config)
        # Usages stand in the order of the images.
        for handle, used in zip(images.list(), usage.list_usage()):
            goes, reason = decide(handle, used, request.now, limit)
            if goes:
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
    """Whether an image goes, and why."""
    if used.sandboxes > 0 or used.snapshots > 0:
        return False, "in use"
    if used.pinned:
        return False, "pinned by the operator"
    touched: Optional[Datetime] = handle.last_used_at or handle.created_at
    if touched is None:
        return False, "neither a last use nor a creation is on record"
    days = days_since(touched, now)
    verb = "last used" if handle.last_used_at else "never used and created"
    goes = days > limit
    return goes, f"{verb} {days}d ago, which is {'longer than' if goes else 'within'} {limit}d"


def days_since(touched: Datetime, now: Datetime) -> int:
    """Whole days; none for an instant in the future."""
    seconds = now.seconds - touched.seconds - (touched.nanoseconds > now.nanoseconds)
    return max(seconds, 0) // 86400


def remove_because(reference: str, reason: str) -> None:
    """Removes an image, or explains why it may not. Past a cap of the grant, the whole plan is refused."""
    try:
        images.remove(reference, False)
        report.explain(reference, reason)
    except Err as failure:
        match failure.value:
            case types.Error_ImageInUse():
                report.explain(reference, f"{reason}; kept because something uses it")
            case types.Error_Denied(denial) if denial.right != types.Right.BUDGET:
                report.explain(reference, f"{reason}; kept because {denial.message}")
            case types.Error_Denied(denial):
                raise Err(denial.message) from None
            case _:
                raise
