"""The commands: what they print, where, with which exit code, and what they leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from synthetic_runs import make_recording, make_run

from adaptive_sleep.experiments import commands_run
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.runs import RunSummary
from adaptive_sleep.streams.errors import InputError

COMMANDS = [
    ("demo",), ("replay",), ("run",), ("train",), ("report",), ("inspect",), ("policies",),
    ("reproduce",), ("counterfactual",), ("probe",),
    ("bench", "kernels"), ("bench", "runtime"), ("bench", "training"),
    ("record", "host"), ("record", "text"), ("record", "csv"),
    ("record", "parquet"), ("record", "eventlog"), ("record", "task"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    # The help is folded to a width; the example is one sentence all the same.
    assert f"Example: adaptive-sleep {' '.join(command)}" in " ".join(out.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["replya"],
        ["replay"],
        ["replay", "R", "--model", "m", "--out", "o", "--speed", "fast"],
        ["replay", "R", "--model", "m", "--out", "o", "--start", "1.5"],
        ["replay", "nowhere", "--model", "bundled:telemetry", "--out", "o"],
        ["counterfactual", "R", "--model", "m", "--out", "o", "--tolerance", "-1"],
        ["counterfactual", "nowhere", "--model", "bundled:telemetry", "--out", "o"],
        ["run", "nowhere", "--model", "bundled:telemetry"],
        ["run", "host", "--model", "bundled:telemetry", "--eviction", "heaviest"],
        ["counterfactual", "R", "--model", "m", "--out", "o", "--eviction", "retrieve"],
        ["train"],
        ["train", "a.toml", "--recording", "R"],
        ["report"],
        ["report", "nowhere"],
        ["inspect", "nowhere"],
        ["inspect", "bundled:nothing-like-this"],
        ["record", "host", "--label", "phase"],
        ["record", "csv", "table.txt", "--time", "t", "--out", "o"],
        ["record", "parquet", "table.csv", "--time", "t", "--out", "o"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_2_with_a_message_and_nothing_written(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.strip()
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from adaptive_sleep.experiments.cli import main; main(['--help']);"
        "heavy = {'torch', 'polars', 'plotly', 'optuna', 'gymnasium', 'jinja2'} & set(sys.modules);"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_policies_are_listed_with_parameters_and_ranges(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["policies", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["policies"]}
    assert {"fixed", "surprise", "state_change", "budgeted", "capped", "prescribed"} <= set(listed)
    parameters = {it["name"]: it for it in listed["surprise"]["parameters"]}
    assert parameters["threshold"]["type"] == "float"
    assert parameters["threshold"]["tune"]["low"] < parameters["threshold"]["tune"]["high"]
    assert main(["policies"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in listed)


def test_inspect_says_what_a_recording_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = make_recording(tmp_path / "R")
    assert main(["inspect", str(tmp_path / "R"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["what"] == "recording"
    assert found["sha256"] == recording.sha256
    assert found["rows"] == found["rows_per_stream"]["host"] == recording.rows
    assert main(["inspect", str(tmp_path / "R")]) == 0
    out = capsys.readouterr().out
    assert "channels (label)" in out
    assert "phase (idle, busy, storm)" in out


def test_inspect_says_what_a_run_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", make_recording(tmp_path / "R"), policy="fixed(3)", most=2)
    assert main(["inspect", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["what"] == "run"
    assert found["policy"] == "fixed(3)"
    assert found["finished"]
    assert found["trace_sha256"] == found["summary"]["trace_sha256"]


@pytest.mark.parametrize("damaged", ["recording", "run"])
def test_inspect_refuses_a_changed_file(
    damaged: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = make_recording(tmp_path / "recording")
    make_run(tmp_path / "run", recording)
    shard = next((tmp_path / damaged).rglob("*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert main(["inspect", str(tmp_path / damaged)]) == 2
    assert shard.name in capsys.readouterr().err


def test_report_writes_the_page_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", make_recording(tmp_path / "R"))
    assert main(["report", str(run), "--out", str(tmp_path / "r.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size > 1_000_000


def test_record_host_makes_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "phase.txt").write_text("busy\n")
    label = f"phase={tmp_path / 'phase.txt'}"
    out = tmp_path / "R"
    arguments = ["record", "host", "--seconds", "0.6", "--hz", "10", "--label", label]
    assert main([*arguments, "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kind"] == "series"
    assert 4 <= said["rows"] <= 8
    assert main([*arguments, "--out", str(out)]) == 2  # it exists now
    assert "exists" in capsys.readouterr().err


def test_replay_passes_its_options_on_and_prints_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptive_sleep.experiments import replay as module

    seen: dict[str, object] = {}
    summary = RunSummary(
        loss=0.5, mean_passes=2.0, events=10, windows=2, flops_per_event=3.0,
        sleep_flops_per_event=1.0, seconds=0.1, wake_p50=0.01, wake_p99=0.02, longest_stall=0.03,
        trace="t", trace_sha256="s",
    )  # fmt: skip

    def pretend(*places: object, **options: object) -> RunSummary:
        seen.update(options, places=places)
        return summary

    monkeypatch.setattr(module, "replay", pretend)
    out = tmp_path / "run"
    options = "--policy fixed(2) --resume --speed 2 --gap 5 --kv-budget 9 --budget 7 --burst 3"
    more = "--max-passes 6 --seed 4 --start 0.25 --stop 0.5 --window 32 --eviction sliding"
    arguments = ["replay", "R", "--model", "M", "--out", str(out), *options.split(), *more.split()]
    assert main([*arguments, "--keep", "40", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {
        "loss", "mean_passes", "events", "windows", "flops_per_event", "seconds", "wake_p50",
        "wake_p99", "longest_stall", "trace", "trace_sha256",
    } <= set(printed)  # fmt: skip
    seen.pop("on_progress")
    assert seen == {
        "places": ("R", "M", "fixed(2)", out), "resume": True, "speed": 2.0, "gap_seconds": 5.0,
        "kv_budget": 9, "budget": 7.0, "burst": 3.0, "max_passes": 6, "seed": 4, "start": 0.25,
        "stop": 0.5, "window": 32, "eviction": "sliding", "keep": 40, "predictions": None,
    }  # fmt: skip


def test_a_policy_may_lie_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lies_here.py").write_text(
        "from adaptive_sleep.policies.fixed import Fixed\n\nTwice = Fixed\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    replayed = ["replay", "bundled:telemetry", "--model", "bundled:telemetry", "--stop", "0.01"]
    spec = ["--policy", "lies_here:Twice(passes=2)", "--out", "run", "--json"]
    assert main([*replayed, *spec]) == 0
    assert json.loads(capsys.readouterr().out)["mean_passes"] > 1.5
    assert sys.path.count(str(tmp_path)) == 1
    monkeypatch.delitem(sys.modules, "lies_here")


def test_speed_is_max_or_a_factor() -> None:
    assert commands_run._speed("max") == "max"
    assert commands_run._speed("0.5") == 0.5
    for wrong in ("0", "-1", "inf", "nan", "quick"):
        with pytest.raises(InputError, match="--speed"):
            commands_run._speed(wrong)


CSV = "when,machine,load,kind\n1,a,0.5,start\n2,b,0.25,stop\n3,a,0.75,start\n"


def test_files_become_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text(CSV)
    pl.read_csv(table).write_parquet(tmp_path / "t.pq")
    common = ["--time", "when", "--stream", "machine", "--time-unit", "s", "--json"]
    roles = ["--channel", "load", "--label", "kind", *common]
    made = {
        "csv": ["csv", str(table), *roles],
        "parquet": ["parquet", str(tmp_path / "t.pq"), *roles],
        "eventlog": ["eventlog", str(table), "--column", "kind", *common],
        "text": ["text", str(table), "--json"],
    }
    said = {}
    for name, arguments in made.items():
        assert main(["record", *arguments, "--out", str(tmp_path / name)]) == 0
        said[name] = json.loads(capsys.readouterr().out)
    assert [said[name]["kind"] for name in made] == ["series", "series", "tokens", "tokens"]
    assert [said[name]["rows"] for name in made] == [3, 3, 3, len(CSV)]
    assert [said[name]["streams"] for name in made] == [2, 2, 2, 1]
    assert said["csv"]["sha256"] == said["parquet"]["sha256"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("0.25", "much", "much"), ("\n2,", "\ntwo,", "two"), ("load", "laod", "did you mean 'laod'")],
)
def test_a_bad_table_is_2_and_leaves_nothing(
    old: str, new: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.csv"
    table.write_text(CSV.replace(old, new))
    arguments = ["--time", "when", "--channel", "load", "--time-unit", "s"]
    assert main(["record", "csv", str(table), *arguments, "--out", str(tmp_path / "R")]) == 2
    assert said in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_a_wrong_unit_of_time_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    arguments = ["--time", "when", "--time-unit", "h", "--out", str(tmp_path / "R")]
    assert main(["record", "csv", str(tmp_path / "t.csv"), *arguments]) == 2
    assert "one of s, ms, us, ns" in capsys.readouterr().err


def test_bench_prints_what_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptive_sleep.experiments import bench_kernels

    found = {
        "shapes": [{"shape": [1, 64, 4, 32, 32], "forward_ratio": 2.5, "peak_bytes": 1000}],
        "forward_ratio_geomean": 2.5,
        "gate": "passed",
    }
    monkeypatch.setattr(bench_kernels, "run_bench", lambda **_: found)
    assert main(["bench", "kernels", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["bench", "kernels"]) == 0
    out = capsys.readouterr().out
    assert "(1, 64, 4, 32, 32)" in out
    assert "gate: passed" in out
