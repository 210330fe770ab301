"""Markdown tables and the numbers in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Cell = float | str | None


def markdown(
    columns: Sequence[str], rows: Mapping[str, Sequence[Cell]], digits: int = 3, corner: str = "", align: str = "---:"
) -> str:
    """Format a table whose first column has the rows' names. None is left blank, text stays as it is."""
    lines = [[corner, *columns], ["---", *[align] * len(columns)]]
    lines += [[name, *(shown(value, digits) for value in row)] for name, row in rows.items()]
    return "\n".join("|" + "|".join(f" {cell} ".replace("|", "\\|") for cell in line) + "|" for line in lines)


def shown(value: Cell, digits: int) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.{digits}f}"


def speed(value: float) -> str:
    """Format a rate or a ratio with about three digits."""
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"


def ranged(values: Iterable[float]) -> str:
    """Format the smallest and the largest value, or only one if both look the same."""
    ordered = sorted(values)
    return "–".join(dict.fromkeys(speed(value) for value in (ordered[0], ordered[-1])))


def values(rows: Mapping[str, Mapping[str, Cell]]) -> tuple[list[str], dict[str, list[Cell]]]:
    """Columns and rows of a table whose rows have the same keys."""
    return list(next(iter(rows.values()))), {name: list(row.values()) for name, row in rows.items()}


def with_interval(value: float, ends: Sequence[float] | None) -> str:
    """Format a figure with three digits, and the ends of its interval if there is one."""
    return f"{value:.3f} ({ends[0]:.3f} to {ends[1]:.3f})" if ends else f"{value:.3f}"
