"""What all pages of a report share: tables with their Parquet, the template, the file.

What is on a page is decided in report.py (runs), report_comparison.py and report_study.py.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.manifest import write_file

if TYPE_CHECKING:
    import plotly.graph_objects as go

CONFIG = '{"responsive": true, "displaylogo": false, "displayModeBar": false}'
PARQUET = "application/vnd.apache.parquet"
_START = 4096  # bytes of a page, in which one of these stands if it is ours
_OURS = (b'<meta name="generator" content="adaptive-sleep">', b"adaptive-sleep</title>")


@dataclass(frozen=True)
class Cell:
    """A table cell: what is shown, and the number that it sorts by (None: by its text)."""

    text: str
    key: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of a page: its id, columns (name and meaning), rows, and a colour for each row.

    `frame`: all that the table is of, for the reader to download; None: there is no such link.
    `spec`: the last column holds spec strings.
    """

    name: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    colours: Sequence[str] = ()
    frame: pl.DataFrame | None = None
    spec: bool = False

    def download(self, stem: str) -> tuple[str, str, str] | None:
        """The name of the file, how large it is, and its bytes as a data: URL; None without."""
        if self.frame is None:
            return None
        buffer = io.BytesIO()
        self.frame.write_parquet(buffer)
        data = buffer.getvalue()
        file = re.sub(r"[^\w.-]+", "-", f"{stem}-{self.name}.parquet")
        encoded = base64.b64encode(data).decode()
        return file, f"{max(1, round(len(data) / 1000)):,} kB", f"data:{PARQUET};base64,{encoded}"


def number(
    value: float | None, form: str, ends: Sequence[float] | None = None, *, none: str = ""
) -> Cell:
    """A cell with a number, and ± half its interval where it has one.

    >>> number(0.5, ".2f", (0.4, 0.6)).text, number(None, ".2f").text
    ('0.50 ±0.10', '')
    """
    if value is None or not math.isfinite(value):
        return Cell(none)
    spread = "" if ends is None else f" ±{(ends[1] - ends[0]) / 2:{form.lstrip('+')}}"
    return Cell(f"{value:{form}}{spread}", value)


def make_page(
    template: str, *, title: str, figures: Mapping[str, go.Figure], **context: Any
) -> str:
    """The page as text: a template of this folder, filled; `figures` by the id of their place."""
    import jinja2
    from plotly.offline import get_plotlyjs

    here = resources.files("adaptive_sleep.experiments")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: here.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(
        title=title,
        figures={name: _json(figure) for name, figure in figures.items()},
        config=CONFIG,
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        **context,
    )


def _json(figure: go.Figure) -> str:
    """The figure as JSON that is safe inside a <script>."""
    text = str(figure.to_json())
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def file_to_write(out: str | Path) -> Path:
    """The path of the page. Raises InputError for a folder, for what is not named as a page, and
    for a file that is no page of ours; an empty one is nobody's."""
    out = Path(out)
    if out.is_dir():
        raise InputError(f"out={str(out)!r}: this is a folder; a report is one file, name.html")
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"out={str(out)!r}: a report is a file named *.html")
    if out.exists():
        try:
            with out.open("rb") as file:
                start = file.read(_START)
        except OSError as error:
            raise InputError(f"out={str(out)!r}: cannot be read: {error.strerror}") from None
        if start and not any(mark in start for mark in _OURS):
            raise InputError(
                f"out={str(out)!r}: exists already, and is no report of ours; choose another name"
            )
    return out


def save_page(page: str, out: Path) -> Path:
    """Write the page whole or not at all, in a folder that is made where it is missing."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={str(out)!r}: cannot be made there: {error.strerror}") from None
    return write_file(out, page.encode())
