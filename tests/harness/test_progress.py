"""Progress: one live line on a terminal, a line per tenth elsewhere, nothing when quiet."""

from io import StringIO

from harness.progress import Progress


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_outside_a_terminal_each_tenth_is_one_plain_line():
    stream = StringIO()
    progress = Progress(stream)
    for done in range(1, 101):
        progress("m-eurosat", done, 100)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("m-eurosat: 1/100")
    assert lines[-1] == "m-eurosat: 100/100"
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_the_line_is_rewritten_in_place():
    stream = Terminal()
    progress = Progress(stream)
    progress.prefix = "deo on "
    progress("m-eurosat", 1, 2)
    progress("m-eurosat", 2, 2)
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().count("\r") == 2
    assert stream.getvalue().endswith("deo on m-eurosat: 2/2")
    progress.line("skipped something")
    assert stream.getvalue().endswith("skipped something\n")


def test_quiet_says_nothing():
    stream = StringIO()
    progress = Progress(stream, quiet=True)
    progress("a", 1, 2)
    progress.line("b")
    assert stream.getvalue() == ""
