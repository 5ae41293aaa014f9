"""Which page `adaptive-sleep report` writes: of runs, of a comparison or of a study.

What is given decides it; the pages are made in report.py, report_comparison.py and report_study.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptive_sleep.streams.errors import InputError


def write_given(
    given: Sequence[str], out: Path, *, title: str = "", study: str | None = None
) -> dict[str, Any]:
    """Write the page of what is given: run folders; or a comparison (its JSON, its folder, the name
    of a kept result); or the URL of a storage, of which `study` is shown.

    Returns what was written under `report`, and of what: `runs`, `comparison` or `study`. Raises
    InputError where it is none of them, or a comparison or a study is given beside something else.
    """
    urls = [it for it in given if "://" in it]
    if study is not None and not urls:
        raise InputError(
            f"study={study!r}: goes with the storage of a study, such as sqlite:///study.db"
        )
    alone = [*urls, *(it for it in given if it not in urls and not _is_run(it))]
    if alone and len(given) > 1:
        raise InputError(
            f"report {alone[0]!r}: is no run; a comparison or a study has a page of its own, so "
            f"give nothing beside it (got {len(given)})"
        )
    if urls:
        from adaptive_sleep.experiments.report_study import write_study

        written, name = write_study(urls[0], study, out, title=title)
        return {"report": str(written), "study": name}
    if alone:
        from adaptive_sleep.experiments.report_comparison import write_comparison

        _check_file(alone[0])
        written, name = write_comparison(alone[0], out, title=title)
        return {"report": str(written), "comparison": name}
    from adaptive_sleep.experiments.report import write_report

    written = write_report([Path(it) for it in given], out, title=title)
    return {"report": str(written), "runs": list(given)}


def _is_run(where: str) -> bool:
    return (Path(where) / "run.json").is_file()


def _check_file(where: str) -> None:
    """Raise InputError for a database that is given by its path, and for a folder of neither."""
    path = Path(where)
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        raise InputError(
            f"report {where!r}: a study is given by the URL of its storage, sqlite:///{where}"
        )
    if path.is_dir() and not (path / "comparison.json").is_file():
        raise InputError(
            f"report {where!r}: neither a run (run.json) nor a comparison (comparison.json) lies "
            "there"
        )
