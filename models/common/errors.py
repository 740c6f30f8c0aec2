"""The one error a caller can mend, and the one sentence every wrong name receives."""

from collections.abc import Collection
from difflib import get_close_matches


class UserError(Exception):
    """A mistake the caller can mend: the command line prints it in one line and exits with 2.

    Any other exception that reaches the door is a bug of ours and shows a traceback.
    """


def choose(kind: str, name: str, known: Collection[str]) -> str:
    """Return `name` if it is known; otherwise raise a `UserError` that offers the nearest known name."""
    if name in known:
        return name
    near = get_close_matches(name, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    raise UserError(f"no {kind} {name!r}{hint} Known: {', '.join(known)}")


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, cut to fit into a sentence; its class where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
