"""What verbs print on standard output: documents for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekd_edge.terminal import in_one_line, printable

if TYPE_CHECKING:
    from rekd_edge.audit import Finding
    from rekd_edge.builder.run import Built
    from rekd_edge.records.monitor import Change


def print_json(document: Any) -> None:
    """The one document of `--json`."""
    print(json.dumps(document, indent=2))


def print_manifest(fields: dict[str, Any]) -> None:
    """A manifest, or parts of it, as tables; a trimmed vocabulary takes one line."""
    if found := fields.get("vocabulary"):
        gain = 100 * (found["accuracy_trimmed"] - found["accuracy_full"])
        line = (
            f"{found['pieces']} of {found['of']} pieces; accuracy {found['accuracy_trimmed']:.3f} "
            f"({gain:+.1f} points); {found['changed_rows']} of {found['rows']} rows are tokenised otherwise"
        )
        fields = {**fields, "vocabulary": line}

    print_tables(fields)


def print_tables(report: dict[str, Any]) -> None:
    """One table of the single values of a report, and one for each group of values in it."""
    from rich import box
    from rich.table import Table

    from rekd_edge.progress import SafeConsole

    terminal = SafeConsole(highlight=False)
    if not terminal.is_terminal:
        terminal = SafeConsole(highlight=False, width=1000)  # a pipe has no width

    groups = {name: value for name, value in report.items() if isinstance(value, dict) and value}
    singles = {name: value for name, value in report.items() if name not in groups}
    for title, group in {"": singles, **groups}.items():
        table = Table(title, "", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=bool(title))
        for name, value in _flat(group):
            table.add_row(printable(name), printable(_in_words(value)))

        if table.row_count:
            terminal.print(table)
            print()


def _flat(group: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of a group, those of groups within it after their name."""
    for name, value in group.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _in_words(value: Any) -> str:
    """A value as a person reads it: four digits, lists without brackets, nothing as a dash."""
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and isinstance(value[0], dict):
        return "; ".join(" ".join(_in_words(part) for part in each.values()) for each in value)
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))

    return str(value)


def print_findings(findings: Sequence[Finding]) -> None:
    """The verdicts of an audit as one table."""
    from rich import box
    from rich.table import Table

    from rekd_edge.progress import SafeConsole

    terminal = SafeConsole(highlight=False)
    if not terminal.is_terminal:
        terminal = SafeConsole(highlight=False, width=1000)

    table = Table("check", "verdict", "reason", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for finding in findings:
        table.add_row(finding.check, finding.verdict, printable(finding.reason))

    terminal.print(table)


def print_changes(changes: Sequence[Change]) -> None:
    """What moved, as one table; a sentence if nothing did."""
    moved = [change for change in changes if change.moved]
    if not moved:
        print(f"Nothing moved among {len(changes)} figures.")
        return

    from rich import box
    from rich.table import Table

    from rekd_edge.progress import SafeConsole

    table = Table("moved", "validation", "records", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for change in sorted(moved, key=lambda change: change.p):
        table.add_row(printable(change.what), f"{change.reference:.1%}", f"{change.records:.1%}")

    SafeConsole(highlight=False).print(table)


def print_built(built: Built) -> None:
    """What `build` made: a table, the verdict, and what to try next."""
    from rich import box
    from rich.table import Table

    from rekd_edge.progress import SafeConsole

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("test", "accuracy", "95 %", "macro-F1", "rationale", "MB", "ms"):
        table.add_column(name, justify="left" if name == "test" else "right", no_wrap=True)
    for row in built.rows:
        table.add_row(
            row["name"],
            f"{row['accuracy']:.3f}",
            "{:.2f} to {:.2f}".format(*row["interval"]),
            f"{row['macro_f1']:.3f}",
            f"{row['rationale_ratio']:.0%}",
            f"{row['size_bytes'] / 1e6:.1f}" if "size_bytes" in row else "",
            f"{row['milliseconds']:.2f}" if "milliseconds" in row else "",
        )

    SafeConsole(highlight=False).print(table)
    say_line(built.verdict)
    say_line(f"{built.folder / 'report.html'} shows examples, curves and an audit.")
    say_next(f'rekd-edge predict {built.folder / "bundle"} "your own text"')


def print_figures(figures: dict[str, Any], indent: str = "  ") -> None:
    """Names and values, one a line; nested tables are indented."""
    width = max(map(len, figures), default=0)
    for name, value in figures.items():
        if isinstance(value, dict) and value:
            say_line(f"{indent}{name}")
            print_figures(value, indent + "  ")
        else:
            say_line(f"{indent}{name:<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")


def show_tables(document: dict[str, Any], output: Path) -> None:
    """The tables of a sweep, and where they were written."""
    from rekd_edge.progress import SafeConsole
    from rekd_edge.sweep.rendering import as_rich, sections

    terminal = SafeConsole()

    for section in sections(document):
        print(f"{printable(section.title)}\n")
        if terminal.is_terminal:
            terminal.print(as_rich(section, terminal.width))
        else:
            SafeConsole(width=1000).print(as_rich(section))

        print(f"\n{printable(section.legend)}\n")

    say_line(f"{output / 'table.md'}, {output / 'table.json'}")


def show_prediction(source: str, prediction: Any) -> None:
    """An input with its rationale highlighted."""
    from rekd_edge.progress import SafeConsole
    from rekd_edge.runtime.display import show

    show(SafeConsole(highlight=False), source, prediction)


def say_next(*commands: str) -> None:
    """Commands that a user may want to run next."""
    print("\nnext:")
    for command in commands:
        say_line(f"  {command}")


def say_line(line: str) -> None:
    """One line on standard output, whatever is in it."""
    print(in_one_line(line))
