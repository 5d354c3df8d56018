"""The cache as the policy sees it."""

from typing import Callable, NamedTuple, Optional, TypeVar

from componentize_py_types import Err
from wit_world.imports import images as host
from wit_world.imports import report, types, usage

# The number of images that are read at a time: enough that calls are few.
PAGE = 1024

T = TypeVar("T")


class Image(NamedTuple):
    """An image and its users."""

    handle: types.ImageHandle
    usage: usage.ImageUsage


class CallError(Exception):
    """A call that failed and that ends the run: a sentence for the operator."""


def images() -> list[Image]:
    """Reads every visible image with its usage, newest created first."""
    result: list[Image] = []
    after: Optional[str] = None
    while True:
        filter = host.ImageFilter(
            reference=None,
            unused_since=None,
            arrived_before=None,
            min_size_bytes=None,
            unused=None,
            order=host.Order.CREATED_NEWEST_FIRST,
            after=after,
            limit=PAGE,
        )
        page = call(lambda: host.select(filter))
        if not page:
            return result
        references = [handle.reference for handle in page]
        # Answers come in the order of the references.
        result += map(Image, page, call(lambda: usage.get_usage(references)))
        after = references[-1]


def remove_because(reference: str, reason: str) -> None:
    """Stages the removal of an image and explains it.

    If the image is in use after all, or if the run lacks the right to remove it, the image is kept, which is explained,
    too. Any other failure is raised, as is one that refuses the whole plan.
    """
    try:
        host.remove(reference, False)
    except Err as failure:
        why = obstacle(failure.value)
        if why is None:
            raise CallError(sentence(failure.value)) from None
        reason = f"{reason}; kept because {why}"
    report.explain(reference, reason)


def obstacle(error: types.Error) -> Optional[str]:
    """Returns why a removal came to nothing, if the run can go on; none if the whole plan is refused."""
    match error:
        case types.Error_ImageInUse():
            return "something uses it"
        case types.Error_Denied(denial) if denial.right == types.Right.REMOVE:
            return "the grant does not let this policy remove it"
        case types.Error_Denied(denial) if denial.right == types.Right.PROTECTED:
            return "the operator protects it"
    return None


def call(function: Callable[[], T]) -> T:
    """Returns what a call returns; an error ends the run."""
    try:
        return function()
    except Err as failure:
        raise CallError(sentence(failure.value)) from None


def sentence(error: types.Error) -> str:
    """Returns an error as a sentence for the operator."""
    match error:
        case types.Error_ImageNotFound(reference):
            return f"the cache has no image `{reference}` that this policy may see"
        case types.Error_ImageInUse(users):
            return f"`{users.reference}` is in use"
        case types.Error_Denied(denial):
            return denial.message
        case types.Error_InvalidReference((text, problem)):
            return f"`{text}`: {problem}"
        case types.Error_Unsupported(message) | types.Error_Other(message):
            return message
