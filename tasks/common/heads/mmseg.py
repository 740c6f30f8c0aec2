"""The one door to mmsegmentation: its decode heads, though mmcv's compiled operations are not installed.

`mmseg.models` imports losses and heads that need `mmcv._ext`, the compiled part that mmcv-lite leaves out. UPerHead and
FCNHead call none of it, so a module of that name that knows every operation, and can do none, lets the import through.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

EXTENSION = "mmcv._ext"


class Operations(ModuleType):
    """Stands for `mmcv._ext`: has every operation by name, each of which raises `RuntimeError` when it is called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # inspect.getmodule asks every loaded module for __file__ and must hear that there is none.
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        def missing(*values: object, **options: object) -> None:
            raise RuntimeError(f"mmcv's compiled operation {name!r} was called, which mmcv-lite does not have")

        return missing


def provide_extension() -> None:
    """Put the stand-in into `sys.modules` unless mmcv's own extension is there; a second call changes nothing."""
    if find_spec(EXTENSION) is None:
        module = Operations(EXTENSION)
        module.__spec__ = ModuleSpec(EXTENSION, loader=None)  # find_spec reads it, from the next call on
        sys.modules[EXTENSION] = module


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings that are addressed to mmsegmentation's own training code.

    They suggest one logit channel for two classes and other arguments for losses that are never called.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def building() -> Iterator[None]:
    """Where heads are built: quietly, and with names looked up in mmsegmentation's registries.

    A Runner of mmengine that has worked in the same process leaves its own scope behind, in which they are not found.
    """
    from mmengine.registry import DefaultScope

    with quiet(), DefaultScope.overwrite_default_scope("mmseg"):
        yield


def decode_heads() -> ModuleType:
    """`mmseg.models.decode_heads`, imported when it is first asked for: that takes seconds."""
    provide_extension()
    with quiet():
        from mmseg.models import decode_heads as found

    return found
