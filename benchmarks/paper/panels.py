"""What all pictures of the paper's experiments have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fixedpoint import files


def headed(figure: Any, title: str) -> None:
    """Give a figure its title."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)


def plain(axes: Any, title: str | None = None) -> None:
    """Take the upper and right border from a panel, and give it a title if it has one."""
    axes.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axes.set_title(title, loc="left", fontsize=10)


def save(figure: Any, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
