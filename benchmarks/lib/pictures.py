"""Style of all pictures, and grouped bar charts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of a size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, title: str, file: Path) -> None:
    """Give a figure its title and write it, without frames at the top and right."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    figure.savefig(file, dpi=150)


def draw_bars(
    values: Mapping[str, Mapping[str, float | None]],
    label: str,
    title: str,
    file: Path,
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
) -> None:
    """Draw grouped bars: a group for each set, a bar for each contestant.

    Args:
        values: by contestant, then by set. None draws no bar.
        label: of the vertical axis.
        title: of the figure.
        file: path of the image.
        intervals: low and high end of a value, by contestant and set, drawn as a line.
    """
    sets = list(dict.fromkeys(name for row in values.values() for name in row))
    width = 0.8 / len(values)
    figure = new_figure(max(6, 0.22 * len(sets) * len(values) + 1.5), 4.5)
    axes = figure.subplots()
    for i, (contestant, row) in enumerate(values.items()):
        places = [place + (i + 0.5) * width - 0.4 for place in range(len(sets))]
        heights = [row.get(name) or 0.0 for name in sets]
        axes.bar(places, heights, width, label=contestant)
        for place, name in zip(places, sets, strict=True):
            if ends := (intervals or {}).get(contestant, {}).get(name):
                axes.plot([place, place], ends, color="black", linewidth=0.7)
    axes.set_xticks(range(len(sets)), sets, rotation=30, ha="right")
    axes.set_ylabel(label)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    save(figure, title, file)
