"""Figures as tables that can stand in docs/performance.md as they are printed."""

from collections.abc import Iterable, Sequence
from statistics import median, quantiles

SIZES = {2_000: "2 KB", 60_000: "60 KB", 500_000: "500 KB", 5_000_000: "5 MB"}


def title(words: str) -> None:
    print(f"## {words}\n", flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of Markdown, its columns aligned."""
    cells = [list(head), ["---"] * len(head), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    print(flush=True)


def middle(values: Sequence[float]) -> float:
    """The median; nan of nothing."""
    return median(values) if values else float("nan")


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many of a hundred stay below."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f}" if seconds < 0.01 else f"{seconds * 1000:.1f}"
