"""The cache as the policy sees it."""

from typing import Callable, NamedTuple, Optional, TypeVar

from componentize_py_types import Err
from wit_world.imports import images as host
from wit_world.imports import report, types, usage

# How many images are read at a time: enough that calls are few.
PAGE = 1024

T = TypeVar("T")


class Image(NamedTuple):
    """An image and who needs it."""

    handle: types.ImageHandle
    usage: usage.ImageUsage


class CallError(Exception):
    """A call that failed and that ends the run: a sentence for the operator."""


def images() -> list[Image]:
    """Every visible image with its usage, newest created first."""
    usages = {of.reference: of for of in call(usage.list_usage)}
    result: list[Image] = []
    after: Optional[str] = None
    while True:
        filter = host.ImageFilter(
            reference=None,
            unused_since=None,
            created_before=None,
            min_size_bytes=None,
            unused=None,
            order=host.Order.CREATED_NEWEST_FIRST,
            after=after,
            limit=PAGE,
        )
        page = call(lambda: host.select(filter))
        if not page:
            return result
        for handle in page:
            used = usages.pop(handle.reference, None)
            if used is None:
                raise CallError(f"the host lists `{handle.reference}` and has no usage for it")
            result.append(Image(handle, used))
        after = page[-1].reference


def remove_because(reference: str, reason: str) -> None:
    """Stages the removal of an image and explains it.

    What is in use after all, or is not this run's to remove, is kept, and that is explained. Only what makes the whole
    run pointless is raised, as is going past a cap of the grant.
    """
    try:
        host.remove(reference, False)
    except Err as failure:
        error = failure.value
        match error:
            case types.Error_Denied(denial) if denial.right == types.Right.BUDGET:
                raise CallError(sentence(error)) from None
            case types.Error_Denied() | types.Error_ImageInUse():
                report.explain(reference, f"{reason}; kept because {sentence(error)}")
            case _:
                raise CallError(sentence(error)) from None
    else:
        report.explain(reference, reason)


def call(function: Callable[[], T]) -> T:
    """What a call gives; an error ends the run."""
    try:
        return function()
    except Err as failure:
        raise CallError(sentence(failure.value)) from None


def sentence(error: types.Error) -> str:
    """An error as a sentence for the operator."""
    match error:
        case types.Error_ImageNotFound(reference):
            return f"the cache holds no image `{reference}` that this policy may see"
        case types.Error_ImageInUse(users):
            return f"`{users.reference}` is in use by {names(users)}"
        case types.Error_Denied(denial):
            return denial.message
        case types.Error_InvalidReference(reference):
            return f"`{reference}` is not an image reference"
        case types.Error_Unsupported(message) | types.Error_Other(message):
            return message


def names(users: types.ImageUsers) -> str:
    """All users in words."""
    every = [f"sandbox `{name}`" for name in users.sandboxes]
    every += [f"snapshot `{name}`" for name in users.snapshots]
    if not every:
        return "a running operation"
    *others, last = every
    return f"{', '.join(others)} and {last}" if others else last
