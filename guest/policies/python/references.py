"""Image references: how their spellings compare."""


def repository(reference: str) -> str:
    """The normalized repository of a reference: `docker.io/library/python` of `python:3.12`."""
    name = name_of(reference)
    first, slash, rest = name.partition("/")
    registry, path = "docker.io", name
    if slash and (first == "localhost" or "." in first or ":" in first):
        registry, path = first, rest
    if registry == "index.docker.io":
        registry = "docker.io"
    if registry == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return f"{registry}/{path}"


def name_of(reference: str) -> str:
    """What is left without tag and digest. A colon before the last slash is a registry's port."""
    tagged = reference.partition("@")[0]
    colon = tagged.find(":", tagged.rfind("/") + 1)
    return tagged if colon < 0 else tagged[:colon]
