"""A report shows what the runs say, is one file, and asks nothing of any network."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from synthetic_runs import ORIGIN, PHASES, SECOND, WINDOWS, make_recording, make_run, make_trace

from adaptive_sleep.experiments import report_figures as draw
from adaptive_sleep.experiments.live import run_live
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.report import quantity, render, write_report
from adaptive_sleep.experiments.report_data import (
    MOST_POINTS,
    Phases,
    _names,
    comparable,
    curve,
    passes_by_phase,
    read_phases,
    read_runs,
    running_difference,
)
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.streams.errors import InputError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """Ids, cells of the table, and everything that could make a browser load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loads: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.add(str(value))
            if name in ("src", "srcset", "href", "data", "action", "poster"):
                self.loads.append((tag, str(value)))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data.strip()


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    recording = make_recording(tmp_path / "R")
    return [
        make_run(tmp_path / "still", recording),
        make_run(tmp_path / "often", recording, policy="surprise(threshold=0.5)", most=4, seed=0),
    ]


def test_the_page_is_one_file_that_loads_nothing(runs: list[Path], tmp_path: Path) -> None:
    written = write_report(runs, tmp_path / "deep" / "report.html", title="Two runs")
    assert [file.name for file in written.parent.iterdir()] == ["report.html"]
    page = Page(written.read_text(encoding="utf-8"))
    assert page.loads == []
    assert {"runs", "time", "tradeoff", "by_phase", "signals"} <= page.ids
    text = written.read_text(encoding="utf-8")
    assert text.count("plotly.js v") == 1  # embedded once
    assert "default-src 'none'" in text  # and the browser is told to load nothing


def test_the_table_shows_the_summaries(runs: list[Path], tmp_path: Path) -> None:
    page = Page(write_report(runs, tmp_path / "r.html").read_text(encoding="utf-8"))
    cells = {row[0]: row for row in page.rows if row}
    for path in runs:
        run = open_run(path)
        assert run.summary is not None
        assert run.summary.loss is not None
        row = cells[path.name]
        assert float(row[1]) == pytest.approx(run.summary.loss, rel=1e-4)
        assert float(row[3]) == pytest.approx(run.summary.mean_passes, abs=0.005)
        assert row[-1] == run.manifest.policy
    assert cells["still"][2] == ""
    assert cells["often"][2].startswith("-")


def test_names_and_specs_are_shown_not_run(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "R")
    nasty = "<script>alert(1)</script>"
    run = make_run(tmp_path / "<b>&run", recording, policy=f"fixed({nasty!r})", most=2)
    text = render(read_runs([run]), title=nasty, reading=[nasty])
    assert nasty not in text
    assert text.count("</script>") == 2  # plotly's and ours


def test_what_is_asked_is_no_plan_of_the_policy(tmp_path: Path) -> None:
    """Windows of questions take one pass under any policy, and are in no figure of passes."""
    specs = {"one": "fixed(1)", "four": "fixed(4)", "some": "state_change(tolerance=0.45)"}
    for name, spec in specs.items():
        replay("bundled:chain", "bundled:chain", spec, tmp_path / name, stop=0.1, gap_seconds=0.5)
    one, four, some = read_runs([tmp_path / name for name in specs])
    line = draw.tradeoff_figure([one, four, some]).data[0]
    assert list(line.x) == [one.summary.flops_per_event, four.summary.flops_per_event]
    assert set(four.planned) == {4}
    for run in (one, four, some):
        passes = curve(run).values["passes"]
        assert np.nanmin(passes) >= run.planned.min()
        assert np.nanmean(passes) == pytest.approx(run.summary.mean_passes, abs=0.3)
    times = some.trace["first_time"]
    rows = pl.DataFrame(
        {"stream": some.trace["stream"], "time": times, "phase": ["x"] * len(some.trace)}
    )
    counted = passes_by_phase(some, Phases("phase", ("x",), (), rows))
    assert counted["windows"].sum() == len(some.planned)
    assert set(counted["passes"]) == set(some.planned)


def test_a_run_without_windows_is_refused(tmp_path: Path) -> None:
    run_live([], "bundled:telemetry", "fixed(1)", out=tmp_path / "run")
    with pytest.raises(InputError, match=r"run='.*run': no window closed in it"):
        write_report([tmp_path / "run"], tmp_path / "r.html")


@pytest.mark.parametrize("target", ["folder", "unfinished", "nothing", "twice"])
def test_what_cannot_be_shown_is_refused_and_nothing_written(
    target: str, runs: list[Path], tmp_path: Path
) -> None:
    recording = make_recording(tmp_path / "R2")
    out = tmp_path / "out.html"
    given = {
        "folder": [tmp_path],
        "unfinished": [make_run(tmp_path / "half", recording, finished=False)],
        "nothing": [],
        "twice": [runs[0], runs[0]],
    }[target]
    with pytest.raises(InputError):
        write_report(given, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [("mine.html", "is no report of ours"), ("model.safetensors", "named \\*.html")],
)
def test_what_is_no_report_is_left(name: str, told: str, runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / name
    out.write_text("<!DOCTYPE html><p>mine", encoding="utf-8")
    with pytest.raises(InputError, match=told):
        write_report(runs, out)
    assert out.read_text(encoding="utf-8") == "<!DOCTYPE html><p>mine"


def test_an_empty_file_is_nobodys(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "page.html"  # as mktemp leaves it
    out.touch()
    assert write_report(runs, out).stat().st_size > 1000


def test_an_interrupted_report_leaves_the_earlier_one(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_report(runs, tmp_path / "page" / "r.html")
    before = out.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(runs[:1], out)
    assert out.read_bytes() == before


def test_runs_of_different_models_are_not_compared(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "R")
    paths = [
        make_run(tmp_path / "a", recording),
        make_run(tmp_path / "b", recording, most=3, model_hash="e" * 64),
    ]
    runs = read_runs(paths)
    assert not comparable(runs)
    page = Page(render(runs))
    assert [row[2] for row in page.rows if row] == ["", ""]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    recording = make_recording(tmp_path / "R")
    paths = [make_run(tmp_path / parent / "run", recording) for parent in ("a", "b")]
    assert [run.name for run in read_runs(paths)] == ["a/run", "b/run"]


def test_as_many_folders_tell_runs_apart_as_it_takes(tmp_path: Path) -> None:
    places = ("s-0/test/run", "s-1/test/run", "s-1/fit/run", "s-1/test/other")
    assert _names([tmp_path / place for place in places]) == [
        "s-0/test/run", "s-1/test/run", "fit/run", "other",
    ]  # fmt: skip


def test_the_running_difference_ends_at_the_difference_of_the_losses(runs: list[Path]) -> None:
    first, second = read_runs(runs)
    found = running_difference(second, first)
    assert found is not None
    assert second.summary.loss is not None
    assert first.summary.loss is not None
    assert found[1][-1] == pytest.approx(second.summary.loss - first.summary.loss)
    shifted = second.trace.with_columns(pl.col("last_time") + 1)
    moved = type(second)(**{**vars(second), "trace": shifted})
    assert running_difference(moved, first) is None  # other windows cannot be compared


def test_phases_are_those_of_the_label_channel(runs: list[Path]) -> None:
    phases, why_not = read_phases(read_runs(runs)[0])
    assert phases is not None
    assert why_not == ""
    assert phases.names == PHASES
    assert phases.channel == "phase"
    begin, end, name = phases.segments[1]
    assert (begin - ORIGIN, end - ORIGIN, name) == (125 * SECOND, 250 * SECOND, "busy")


def test_every_window_is_counted_in_the_phase_of_most_of_its_events(runs: list[Path]) -> None:
    run = read_runs(runs)[1]
    phases, _ = read_phases(run)
    assert phases is not None
    counts = passes_by_phase(run, phases)
    assert counts["windows"].sum() == WINDOWS
    first = np.arange(WINDOWS) * 64
    codes = (np.arange(WINDOWS * 64) // 500) % 3
    most = [PHASES[np.bincount(codes[row : row + 64]).argmax()] for row in first]
    passes = run.trace["passes"].to_list()
    for phase, number, windows in counts.iter_rows():
        both = zip(most, passes, strict=True)
        assert windows == sum(pair == (phase, number) for pair in both)


def test_a_moved_recording_costs_the_phases_only(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "R").rename(tmp_path / "elsewhere")
    phases, why_not = read_phases(read_runs(runs)[0])
    assert phases is None
    assert "not where" in why_not
    assert why_not in write_report(runs, tmp_path / "r.html").read_text(encoding="utf-8")


def test_many_streams_are_drawn_from_weighted_means(tmp_path: Path) -> None:
    streams = tuple(f"s{index}" for index in range(MOST_POINTS // WINDOWS + 1))
    recording = make_recording(tmp_path / "R", streams=streams)
    run = read_runs([make_run(tmp_path / "run", recording, most=3)])[0]
    line = curve(run)
    assert line.thinned
    assert len(line.time) < len(run.trace)
    held = np.isfinite(line.values["loss"])
    trace = make_trace(0, 3, streams)
    # Every stream closes its windows at the same moments, so a point is a mean over streams.
    expected = trace.group_by("first_time").agg(pl.col("loss").mean()).sort("first_time")["loss"]
    np.testing.assert_allclose(line.values["loss"][held], expected.to_numpy(), rtol=1e-9)
    assert "not shaded" in render([run])


def test_a_gap_in_the_recording_is_a_gap_in_the_strip(runs: list[Path]) -> None:
    run = read_runs(runs)[1]
    cut = run.trace.filter(~pl.col("window").is_between(10, 19))
    figure = draw.time_figure([run], [curve(type(run)(**{**vars(run), "trace": cut}))], phases=None)
    strip = next(trace for trace in figure.data if trace.type == "heatmap")
    passes = list(strip.z[0])
    assert passes.count(None) == 1
    assert len(strip.x) == len(passes) + 1


def test_signals_that_never_change_are_named_not_drawn(runs: list[Path]) -> None:
    varying, constant = draw.drawn_signals([curve(run) for run in read_runs(runs)])
    assert varying == ["surprise", "state_change"]
    assert constant["budget_left"] == 1.0
    assert constant["gap"] == 0.0


def test_quantities_are_short() -> None:
    assert [quantity(v) for v in (0.0, 12.0, 999.9, 1e3, 1234567.0, 9.999e8)] == [
        "0", "12", "1 k", "1 k", "1.23 M", "1 G",
    ]  # fmt: skip


def browse(page: Path, profile: Path) -> tuple[Page, str, list[str]]:
    """The page as a browser shows it: parsed, as text, and what the browser complained about."""
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update",
        "--virtual-time-budget=8000", "--enable-logging=stderr", f"--user-data-dir={profile}",
    ]  # fmt: skip
    done = subprocess.run(
        [str(CHROMIUM), *flags, "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Page(done.stdout), done.stdout, said


def looked_at(text: str, clicks: str, folder: Path) -> tuple[Page, str]:
    """A page after `clicks`, parsed and as text; nothing was complained of or asked from elsewhere,
    and nothing is wider than the window."""
    look = f"""<script>{clicks}
      const asked = performance.getEntriesByType("resource").length;
      const wide = document.documentElement.scrollWidth <= window.innerWidth;
      document.title = `asked ${{asked}} wide ${{wide}}`;
    </script></body>"""
    out = folder / "r.html"
    out.write_text(text.replace("</body>", look), encoding="utf-8")
    page, shown, complaints = browse(out, folder / "profile")
    assert complaints == []
    assert "<title>asked 0 wide true</title>" in shown
    return page, shown


PHONE = 390, 844  # pixels; a window of the browser is never narrower than 500, a frame may be


def on_a_phone(text: str, folder: Path) -> dict[str, float]:
    """How a page stands in a frame as wide as a phone: pixels of the `frame`, of the `widest` of
    what does not scroll by itself, and of the `smallest` letters that are shown, plots apart."""
    look = """<script>addEventListener("load", () => {
      const sizes = [];
      const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (walk.nextNode()) {
        const owner = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || owner.closest(".plot, script, style")) continue;
        if (owner.getClientRects().length) sizes.push(parseFloat(getComputedStyle(owner).fontSize));
      }
      parent.postMessage([innerWidth, document.documentElement.scrollWidth, Math.min(...sizes)],
                         "*");
    });</script></body>"""
    assert '<meta name="viewport" content="width=device-width' in text  # a frame does not heed it
    (folder / "inner.html").write_text(text.replace("</body>", look), encoding="utf-8")
    outer = folder / "phone.html"
    outer.write_text(
        "<script>onmessage = (it) => { document.title = `phone ${it.data.join(' ')}`; };</script>"
        f'<iframe src="inner.html" width="{PHONE[0]}" height="{PHONE[1]}" frameborder="0"></iframe>'
    )
    _, shown, complaints = browse(outer, folder / "profile")
    assert complaints == []
    found = re.search(r"<title>phone (\S+) (\S+) (\S+)</title>", shown)
    assert found is not None
    return dict(zip(("frame", "widest", "smallest"), map(float, found.groups()), strict=True))


def legible(page: dict[str, float]) -> bool:
    """Whether nothing must be pushed aside to be read, and no letters are too small."""
    return page["frame"] == PHONE[0] >= page["widest"] and page["smallest"] >= 11


def drawn_in(shown: str) -> list[str]:
    """The figures that a browser drew, by their places."""
    return re.findall(r'class="plot js-plotly-plot" id="(\w+)"', shown)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_draws_all_figures_without_an_error(runs: list[Path], tmp_path: Path) -> None:
    written = write_report(runs, tmp_path / "r.html")
    _, text, complaints = browse(written, tmp_path / "profile")
    assert drawn_in(text) == ["time", "tradeoff", "by_phase", "signals"]
    assert complaints == []
    assert legible(on_a_phone(written.read_text(encoding="utf-8"), tmp_path))


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_table_sorts_and_a_run_can_be_hidden(runs: list[Path], tmp_path: Path) -> None:
    written = write_report(runs, tmp_path / "r.html")
    clicks = """<script>
      document.querySelectorAll("#runs thead button")[1].click();
      document.querySelectorAll(".chips button")[1].click();
      const shown = document.getElementById("time").data.filter((it) => it.visible !== false);
      document.title = shown.map((it) => it.name).join(" ");
    </script></body>"""
    written.write_text(written.read_text(encoding="utf-8").replace("</body>", clicks))
    page, text, complaints = browse(written, tmp_path / "profile")
    assert [row[0] for row in page.rows if row] == ["often", "still"]  # by loss, the lower first
    assert "<title>still still</title>" in text  # its line and its strip
    assert complaints == []
