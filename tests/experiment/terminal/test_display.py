"""What a terminal gets: text as it is written, and no control character of a file."""

import io

import pytest
from rich.console import Console

from sgdlab.experiment.running.making import Progress
from sgdlab.experiment.terminal import display

HOSTILE = [
    "half [/the rate]",
    "[red]b[/red]",
    "\x1b]0;title\x07\x1b[31mred",
    "a\rb\nc",
    "\x9b2J\u202e",
]


@pytest.fixture
def terminal(monkeypatch):
    """What both streams would show on a terminal without colours."""
    shown = io.StringIO()

    def make(**_):
        return Console(file=shown, force_terminal=True, no_color=True, width=200)

    monkeypatch.setattr(display, "Console", make)
    return shown


@pytest.mark.parametrize("label", HOSTILE)
def test_a_label_is_shown_as_it_is_written_and_no_markup(terminal, label):
    written = repr(label)[1:-1]
    with display.Bar(False) as bar:
        bar.begin(label, 0)
        bar.update(Progress(1, 2, 0.5, 1.0, label))
        bar._rich.refresh()
    assert written in terminal.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_no_control_character_of_a_file_reaches_the_terminal(terminal, text):
    display.print_table([{"name": text, text: "value"}])
    lines = terminal.getvalue()
    assert lines.count(repr(text)[1:-1]) == 2
    assert set("\a\r\x9b\u202e").isdisjoint(lines)
    bold = lines.replace("\x1b[1m", "").replace("\x1b[0m", "")  # of the heading
    assert "\x1b" not in bold
