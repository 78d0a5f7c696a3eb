"""What reaches the terminal is printable, and Rich's own codes are left alone."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from rekd_edge.progress import SafeConsole
from rekd_edge.terminal import in_one_line, printable

FORBIDDEN = {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)}


@given(st.text(st.characters() | st.sampled_from("\x1b\x9b\u202e\r\n\t\x07")))
def test_a_printable_text_has_lines_and_tabs_and_no_other_controls(text: str) -> None:
    assert not {ord(character) for character in printable(text)} & FORBIDDEN - {0x09, 0x0A}
    assert not {ord(character) for character in in_one_line(text)} & FORBIDDEN - {0x09}


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp"])))
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert printable(text) == in_one_line(text) == text


def test_a_console_strips_what_it_is_given_and_keeps_its_own_codes() -> None:
    out = io.StringIO()
    console = SafeConsole(file=out, force_terminal=True, color_system="truecolor", width=60)
    table = Table("\x1b]0;head\x07")
    table.add_row("\x1b[2Jname\u202e")
    console.print(table)
    console.print("\x1b[31mred\x9b31m", style="bold", markup=False)
    shown = out.getvalue()
    assert "\x1b[1m" in shown  # bold is Rich's
    for code in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e", "\x1b[31m"):
        assert code not in shown
    assert "name" in shown


def test_terminal_sequences_are_left_out() -> None:
    assert printable("a\x1b]0;title\x07b\x9b31m\u202ec\td\ne") == "a]0;titleb31mc\td\ne"
    assert in_one_line("two\nlines\x1b[2J\u2028three") == "two lines[2J three"
