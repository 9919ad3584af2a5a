"""Aligned columns of plain text."""

from __future__ import annotations

import sys
from collections.abc import Container, Sequence
from itertools import zip_longest


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Container[int] = (), width: int | None = None
) -> str:
    """Rows of cells under a header, the last of them totals; columns that are empty are left out.

    A cell may have several lines. The columns `right` are aligned to the right, and lines are cut off at `width`.
    """
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    cells = [[row[i].split("\n") for i in kept] for row in [header, *rows]]
    widths = [max(len(line) for row in cells for line in row[j]) for j in range(len(kept))]
    rule = "-" * min(sum(widths) + 2 * (len(widths) - 1), width or sys.maxsize)
    lines = []
    for number, row in enumerate(cells):
        lines += [rule] if number in (1, len(cells) - 1) else []
        for parts in zip_longest(*row, fillvalue=""):
            placed = zip(kept, parts, widths, strict=True)
            line = "  ".join(f"{part:{'>' if i in right else '<'}{n}}" for i, part, n in placed).rstrip()
            lines.append(line if width is None or len(line) <= width else line[: width - 3] + "...")
    return "\n".join(lines)
