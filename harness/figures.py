"""Figures in files: the same content gives the same bytes, whatever the machine's settings, and a file is whole or not there."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from leaderboards.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS = 120  # per inch


@contextmanager
def figure_file(path: Path, width: float, height: float) -> "Iterator[Figure]":
    """A figure of so many inches, written whole to `path` at the end, or not at all."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # pyplot would choose a backend and keep every figure; a class may be called `a_$b$`, in letters no font has.
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        drawn = Figure(figsize=(width, height), dpi=DOTS)
        FigureCanvasAgg(drawn)
        yield drawn
        picture = io.BytesIO()
        drawn.savefig(picture, format="png", metadata={"Software": None})
    write_atomically(path, picture.getvalue())
