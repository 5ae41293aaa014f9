"""A recording survives a kill, a full disk and bad input; append goes on where it stopped."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from recordings import CHANNELS, write_rows

from adaptive_sleep.streams import manifest as manifest_module
from adaptive_sleep.streams import rows as rows_module
from adaptive_sleep.streams import writer as writer_module
from adaptive_sleep.streams.cutting import Cutter, Windower, _Reader
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter

X = (Channel("x"),)


def parts(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("part-*"))


def loads(path: Path) -> list[float]:
    return [v for block in Recording.open(path).blocks() for v in block.values[:, 0].tolist()]


def test_an_existing_path_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    write_rows(tmp_path / "r", ["a"], [1])
    before = {file.name: file.read_bytes() for file in (tmp_path / "r").iterdir()}
    with pytest.raises(InputError, match="exists already"):
        RecordingWriter(tmp_path / "r", kind="series", channels=CHANNELS)
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "r").iterdir()}


def test_append_goes_on_with_sequence_streams_and_counts(tmp_path: Path) -> None:
    write_rows(tmp_path / "r", ["a", "b"], [10, 20])
    with RecordingWriter(tmp_path / "r", kind="series", channels=CHANNELS, append=True) as writer:
        writer.append("b", [15, 30], values=[[2, 0, 0], [3, 0, 0]])
        writer.append("c", 40, values=[4, 0, 0])
    recording = Recording.open(tmp_path / "r")
    assert recording.streams == ("a", "b", "c")
    assert recording.manifest.stream_rows == (1, 3, 1)
    assert recording.manifest.backwards == 1
    assert recording.scan().collect()["sequence"].to_list() == [0, 0, 1, 2, 0]
    assert recording.manifest.provenance == {"source": "a test"}


def test_append_of_another_schema_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "r", ["a"], [1])
    with pytest.raises(InputError, match="cannot append"):
        RecordingWriter(tmp_path / "r", kind="series", channels=X, append=True)


def test_mixed_rows_are_numbered_as_rows_added_one_by_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    names = [f"s{i}" for i in rng.integers(5, size=300)]
    times = rng.integers(0, 1000, size=300)
    with RecordingWriter(tmp_path / "1", kind="series", channels=X) as writer:
        writer.append_rows(names, times, values=np.arange(300.0)[:, None])
    with RecordingWriter(tmp_path / "2", kind="series", channels=X) as writer:
        for i, name in enumerate(names):
            writer.append(name, int(times[i]), values=[float(i)])
    one, two = Recording.open(tmp_path / "1"), Recording.open(tmp_path / "2")
    assert one.scan().collect().equals(two.scan().collect())
    assert one.sha256 == two.sha256
    assert one.manifest.backwards == two.manifest.backwards > 0


def test_small_shards_are_merged(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", kind="series", channels=X, shard_rows=100) as writer:
        for i in range(150):
            writer.append("a", i, values=[i])
            writer.flush()
            assert len(parts(tmp_path / "r")) < 70  # merged on the way too
    recording = Recording.open(tmp_path / "r")
    rows = [shard.rows for shard in recording.manifest.shards]
    assert all(one + two > 100 for one, two in itertools.pairwise(rows))
    assert loads(tmp_path / "r") == list(range(150))
    assert parts(tmp_path / "r") == [shard.file for shard in recording.manifest.shards]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_keeps_what_was_appended(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with RecordingWriter(tmp_path / "r", kind="series", channels=X) as writer:
            writer.append("a", 1, values=[1])
            writer.flush()
            writer.append("a", 2, values=[2])
            raise error

    with pytest.raises(error):
        interrupted()
    with pytest.warns(UserWarning, match="not closed"):
        assert loads(tmp_path / "r") == [1, 2]
    with RecordingWriter(tmp_path / "r", kind="series", channels=X, append=True) as writer:
        writer.append("a", 3, values=[3])
    assert loads(tmp_path / "r") == [1, 2, 3]


def test_an_interrupt_at_any_line_leaves_a_whole_recording(tmp_path: Path) -> None:
    """At the n-th line of the writer that three appends and a flush run, for every n."""

    def lines_until(wanted: int) -> Any:
        left = wanted

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename != writer_module.__file__:
                return None
            if event == "line" and frame.f_code.co_name != "__exit__":
                left -= 1
                if left == 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        return trace

    def written(path: Path, line: int) -> int:
        """How many appends were done when the interrupt came; 9 where it did not come."""
        done = 0
        try:
            with RecordingWriter(path, kind="series", channels=X) as writer:
                sys.settrace(lines_until(line))
                for number in range(3):
                    stream = "ab"[number // 2]
                    writer.append(stream, [number, number], values=[[number], [number]])
                    done += 1
                    if number == 1:
                        writer.flush()
                sys.settrace(None)
        except KeyboardInterrupt:
            return done
        return 9

    line, done = 1, 0
    while done != 9:
        path = tmp_path / str(line)
        done = written(path, line)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # not closed
            recording = Recording.open(path)
            kept = [int(value) for value in loads(path)]
        whole = [0, 0, 1, 1, 2, 2]
        assert kept in (whole[: 2 * done], whole[: 2 * done + 2]), line
        assert sum(recording.manifest.stream_rows) == recording.rows == len(kept)
        assert recording.orphans == () or done < 3, line
        line += 1
    assert line > 60


def test_what_cannot_be_kept_after_an_exception_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def interrupted() -> None:
        with RecordingWriter(tmp_path / "r", kind="series", channels=X) as writer:
            writer.append("a", 1, values=[1])
            monkeypatch.setattr(os, "fsync", full)
            raise RuntimeError

    with pytest.raises(RuntimeError) as told:
        interrupted()
    (note,) = told.value.__notes__
    assert note.startswith("1 rows could not be written either: ")
    assert "disk is full" in note


def test_rows_are_flushed_by_time(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", kind="series", channels=X, flush_seconds=0.0)
    writer.append("a", 1, values=[1])
    with pytest.warns(UserWarning, match="not closed"):
        assert loads(tmp_path / "r") == [1]


def test_rows_are_flushed_by_time_though_none_comes(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r", kind="series", channels=X, flush_seconds=3600.0)
    writer.append("a", 1, values=[1])
    writer.tick()
    assert manifest_module.read_manifest(tmp_path / "r").rows == 0
    writer._flushed_at -= 3600.0
    writer.tick()
    assert manifest_module.read_manifest(tmp_path / "r").rows == 1
    writer.append("a", 2, values=[2])
    writer.close()
    writer._flushed_at -= 3600.0
    writer.tick()
    assert loads(tmp_path / "r") == [1, 2]  # and no warning that it is not closed


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"time_ns": 1.5, "values": [1]}, "give .n. int64"),
        ({"time_ns": 1}, "values: none given"),
        ({"time_ns": 1, "values": [1, 2]}, r"are \[1, 1\]"),
        ({"time_ns": [1, 2], "values": [[1], [np.inf]]}, "row 1 of channel 'x' is infinite"),
        ({"time_ns": 1, "values": [1e39]}, "infinite as float32"),
        ({"time_ns": 1, "values": [1], "tokens": [1]}, "a series has values"),
    ],
)
def test_bad_rows_are_refused_and_nothing_is_added(tmp_path: Path, given: dict, told: str) -> None:
    with RecordingWriter(tmp_path / "r", kind="series", channels=X) as writer:
        writer.append("a", 1, values=[7])
        with pytest.raises(InputError, match=told):
            writer.append("b", given.pop("time_ns"), **given)
    assert loads(tmp_path / "r") == [7]
    assert Recording.open(tmp_path / "r").streams == ("a",)


@pytest.mark.parametrize(("token", "told"), [(256, "0..255"), (-1, "0..255"), (1.0, "integers")])
def test_tokens_outside_the_vocabulary_are_refused(tmp_path: Path, token: float, told: str) -> None:
    writer = RecordingWriter(tmp_path / "r", kind="tokens", tokenizer="bytes", vocabulary=256)
    with pytest.raises(InputError, match=told):
        writer.append("a", 1, tokens=token)


@pytest.mark.parametrize(
    "channels",
    [(), (Channel("time"),), (Channel("x"), Channel("x")), (Channel("x", role="action"),)],
)
def test_bad_channels_are_refused_and_nothing_is_made(tmp_path: Path, channels: tuple) -> None:
    with pytest.raises(InputError, match="channel"):
        RecordingWriter(tmp_path / "r", kind="series", channels=channels)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("at", [1, 2])
def test_a_close_that_is_interrupted_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A live run closes its recording twice over, and Ctrl-C may come between what is written and
    what is forgotten."""
    writer = RecordingWriter(tmp_path / "r", kind="series", channels=X)
    writer.append("a", [1, 2], values=[[1], [2]])
    writer.flush()
    writer.append("b", 3, values=[3])
    publish, calls = writer._publish, 0

    def interrupted(*given, **named):
        nonlocal calls
        publish(*given, **named)
        calls += 1
        if calls == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    writer.close()
    assert loads(tmp_path / "r") == [1, 2, 3]


# ---- kills ----------------------------------------------------------------------------------

WRITE_UNTIL_KILLED = """
import sys
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.writer import RecordingWriter
writer = RecordingWriter(sys.argv[1], kind="series", channels=[Channel("x")], shard_rows=50)
print("ready", flush=True)
i = 0
while True:
    for _ in range(7):
        writer.append("ab"[i % 2], i, values=[i])
        i += 1
    writer.flush()
    print(i, flush=True)  # rows up to here are promised
"""


def test_a_killed_writer_loses_only_the_tail_that_was_not_flushed(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for attempt in range(6):
        path = tmp_path / str(attempt)
        command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(float(rng.uniform(0.0, 0.5)))
        process.send_signal(signal.SIGKILL)
        promised = process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        whole = [int(line) for line in promised if line.endswith("\n")]
        with pytest.warns(UserWarning, match="not closed"):
            rows = loads(path)
        assert rows == list(range(len(rows)))
        assert len(rows) >= (whole[-1] if whole else 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it may name a file that was never finished
            writer = RecordingWriter(path, kind="series", channels=X, append=True)
        with writer:
            writer.append("c", 10**6, values=[-1])
        assert loads(path) == [*rows, -1]
        assert parts(path) == [shard.file for shard in Recording.open(path).manifest.shards]
        assert not list(path.glob("*.tmp"))


def test_append_drops_a_cut_off_shard_and_says_so(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "r", list("abcaa"), [9, 2, 3, 4, 1], shard_rows=2)
    assert Recording.open(path).manifest.backwards == 2
    last = path / parts(path)[-1]
    last.write_bytes(last.read_bytes()[:10])
    (path / "part-000077.parquet").write_bytes(b"never named")
    (path / "manifest.json.tmp").write_bytes(b"never finished")
    with pytest.warns(UserWarning, match=rf"after row 4.*{last.name}.*manifest.json.tmp"):
        writer = RecordingWriter(path, kind="series", channels=CHANNELS, append=True)
    with writer:
        writer.append("b", 6, values=[6, 0, 0])
    recording = Recording.open(path)
    assert recording.scan().collect()["load"].to_list() == [0, 1, 2, 3, 6]
    assert recording.manifest.stream_rows == (2, 2, 1)
    assert recording.manifest.backwards == 1
    assert recording.orphans == ()


# ---- a full disk ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command, so no small disk can be made")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_earlier_rows_stay(small_disk: Path) -> None:
    rng = np.random.default_rng(0)
    path, flushed = small_disk / "r", 0

    def fill() -> None:
        nonlocal flushed
        with RecordingWriter(path, kind="series", channels=X, shard_rows=20_000) as writer:
            for i in range(50):
                values = rng.normal(size=(20_000, 1))
                writer.append("a", np.arange(20_000) + i, values=values)
                flushed += 20_000

    with pytest.raises(AdaptiveSleepError, match="disk is full"):
        fill()
    assert flushed > 0
    assert not list(path.glob("*.tmp"))
    with pytest.warns(UserWarning, match="not closed"):
        recording = Recording.open(path)
    assert recording.rows == flushed
    assert recording.orphans == ()
    assert sum(len(block) for block in recording.blocks()) == flushed


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "f"
    manifest_module.write_atomically(file, b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AdaptiveSleepError, match=r"f: the disk is full \(5 bytes"):
        manifest_module.write_atomically(file, b"after")
    assert file.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


# ---- size -----------------------------------------------------------------------------------

WRITE_AND_CUT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from recordings import interleaved
from adaptive_sleep.streams.cutting import Cutter, Windower
recording = interleaved(Path(sys.argv[2]), rows=int(sys.argv[3]), streams=64)
events = sum(len(p.events) for _, pieces in Cutter(recording, Windower(128)) for p in pieces)
status = Path("/proc/self/status").read_text()
print(events, int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def test_a_shard_of_many_channels_has_few_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written as it fills, merged up to the same size, and cut in blocks of no more."""
    for width, rows in ((1, 262_144), (122, 262_144), (1_000, 33_354), (10_000, 3_353)):
        assert rows_module.rows_within(width, 262_144) == rows
    monkeypatch.setattr(rows_module, "BUFFER_BYTES", 10_000)
    channels = [Channel(f"c{i}") for i in range(94)]  # 25 rows
    with RecordingWriter(tmp_path / "r", kind="series", channels=channels) as writer:
        for first in range(0, 80, 10):
            writer.append("a", range(first, first + 10), values=np.full((10, 94), first))
            assert writer._pending_rows < 25
            if first == 30:
                writer.flush()
    recording = Recording.open(tmp_path / "r")
    assert max(shard.rows for shard in recording.manifest.shards) <= 25
    reader = _Reader(recording, 0, 80)
    assert reader.ahead(0, 1).end <= 25
    steps = [at for at, _ in Cutter(recording, Windower(16), max_rows=5)]
    assert steps[-1] == 80


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(
    ("rows", "more"),
    [(300_000, 1_500_000), pytest.param(1_000_000, 5_000_000, marks=pytest.mark.slow)],
)
def test_memory_does_not_grow_with_the_length_of_a_recording(
    tmp_path: Path, rows: int, more: int
) -> None:
    peaks = []
    for length in (rows, more):
        arguments = [str(Path(__file__).parent), str(tmp_path / str(length)), str(length)]
        command = [sys.executable, "-c", WRITE_AND_CUT, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        events, peak = done.stdout.split()
        assert int(events) == length
        peaks.append(int(peak))
    assert peaks[1] < 300  # MiB
    assert peaks[1] < peaks[0] + 50
