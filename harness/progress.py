"""One live line while something runs; plain lines when the output is no terminal."""

import sys
import time
from typing import TextIO


class Progress:
    """`progress(stage, done, total)`: a live bar on a terminal, one line per tenth of the way elsewhere (stderr)."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty() and not quiet
        self.quiet = quiet
        self.prefix = ""
        self._stage, self._tenth, self._start, self._first = "", -1, 0.0, 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage or done < self._first:
            self._stage, self._tenth, self._start, self._first = stage, -1, now, done
        if self.quiet:
            return
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total and now > self._start else ""
        text = f"{self.prefix}{stage}: {done}/{total}{left}"
        if self.live:
            self.stream.write(f"\r\x1b[2K{text}")
            self.stream.flush()
        elif total and (tenth := done * 10 // total) > self._tenth:
            self._tenth = tenth
            self.stream.write(text + "\n")
            self.stream.flush()

    def line(self, text: str) -> None:
        """A line that stays, above the live one."""
        if self.quiet:
            return
        self.stream.write(f"\r\x1b[2K{text}\n" if self.live else text + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Leave the terminal clean."""
        if self.live:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()
