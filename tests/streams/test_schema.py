"""A schema that no reader could open is refused before anything is written; codes keep their
meaning when a recording goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter

V = Channel("v")
TOKENS = {"kind": "tokens", "tokenizer": "bytes", "vocabulary": 256, "channels": ()}


def labelled(**given: Any) -> tuple[Channel, ...]:
    return V, Channel("l", "label", **given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "serie"}, "kind='serie': one of series, tokens, did you mean 'series'"),
        ({"kind": 1}, "kind=1: one of series"),
        ({"channels": [Channel("v", "actions")]}, "role='actions'.*did you mean 'action'"),
        ({"channels": [Channel("v", "labels")]}, "channel 'v': role='labels'.*'label'"),
        ({"channels": [Channel("v", ["label"])]}, "channel 'v': role="),
        ({"channels": [Channel("v", unit=None)]}, "channel 'v': unit=None: a str.*'' for none"),
        ({"channels": [Channel("v", unit="\udcff")]}, "channel 'v': unit='.udcff': a str that UTF"),
        ({"channels": [Channel(5)]}, "channel: name=5: a str"),
        ({"channels": ["v"]}, "channels: 'v': each is a Channel"),
        ({"channels": None}, "channels=None: give a sequence"),
        ({"channels": labelled(categories=(0, 1))}, r"'l': categories=\(0, 1\): a list of names"),
        ({"channels": labelled(categories="ab")}, "'l': categories='ab': a list of names"),
        ({"channels": labelled(categories={"a", "b"})}, "'l': categories=.*: a list of names"),
        ({"channels": labelled(delay_ns=1.0)}, "'l': delay_ns=1.0: an int from 0 to 9223"),
        ({"channels": labelled(delay_ns=-1)}, "'l': delay_ns=-1: an int from 0 to 9223"),
        ({"channels": labelled(delay_ns=2**63)}, "'l': delay_ns=9223372036854775808: an int"),
        ({"provenance": {"hz": 4}}, r"provenance\['hz'\]=4: a str"),
        ({"provenance": {"f": Path("x")}}, r"provenance\['f'\]=.*Path.*: a str"),
        ({"provenance": {4: "hz"}}, "provenance: key=4: a str"),
        ({"provenance": "hz"}, "provenance='hz': a mapping"),
        ({"shard_rows": 1e5}, "shard_rows=100000.0: an int from 1 to"),
        ({"shard_rows": 0}, "shard_rows=0: an int from 1 to"),
        ({"shard_rows": True}, "shard_rows=True: an int from 1 to"),
        ({"flush_seconds": "5"}, "flush_seconds='5': a finite number of seconds, 0 or more"),
        ({"flush_seconds": float("nan")}, "flush_seconds=nan: a finite number"),
        ({"flush_seconds": float("inf")}, "flush_seconds=inf: a finite number"),
        ({"flush_seconds": -1}, r"flush_seconds=-1\.0: a finite number"),
        (TOKENS | {"vocabulary": 5.0}, "vocabulary=5.0: an int"),
        (TOKENS | {"vocabulary": True}, "vocabulary=True: an int"),
        (TOKENS | {"vocabulary": 2**31 + 1}, "vocabulary=2147483649: an int from 0 to 2147483648"),
        (TOKENS | {"vocabulary": 10**30}, "vocabulary=1000.*: an int from 0 to 2147483648"),
        (TOKENS | {"tokenizer": 7}, "tokenizer=7: a str"),
        (TOKENS | {"categories": [1, 2]}, r"categories=\[1, 2\]: a list of names"),
    ],
)
def test_what_no_reader_could_open_is_refused_and_nothing_is_made(
    tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        RecordingWriter(tmp_path / "q", **({"kind": "series", "channels": [V]} | given))
    assert not (tmp_path / "q").exists()


def test_numbers_and_text_of_numpy_are_taken(tmp_path: Path) -> None:
    label = Channel(
        np.str_("l"), np.str_("label"), np.str_("s"), tuple(np.array(["a", "b"])), np.int64(5)
    )
    with RecordingWriter(
        tmp_path / "r",
        kind=np.str_("tokens"),
        channels=[label],
        tokenizer=np.str_("ids"),
        vocabulary=np.int64(2),
        categories=np.array(["x", "y"]),
        provenance={np.str_("who"): np.str_("me")},
    ) as writer:
        writer.append("a", 1, tokens=1, values=[0])
        assert type(writer.channels[0].name) is type(writer.channels[0].unit) is str
    recording = Recording.open(tmp_path / "r")
    assert recording.channels == (Channel("l", "label", "s", ("a", "b"), 5),)
    assert recording.manifest.vocabulary == 2
    assert recording.manifest.categories == ("x", "y")
    assert recording.manifest.provenance == {"who": "me"}


def test_the_greatest_token_of_the_greatest_vocabulary_is_written(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", **(TOKENS | {"vocabulary": 2**31})) as writer:
        writer.append("a", 1, tokens=2**31 - 1)
        with pytest.raises(InputError, match=r"allowed are 0\.\.2147483647"):
            writer.append("a", 1, tokens=2**31)
    assert Recording.open(tmp_path / "r").scan().collect()["token"].to_list() == [2**31 - 1]


def test_names_of_codes_are_names_and_stay(tmp_path: Path) -> None:
    with RecordingWriter(
        tmp_path / "r", kind="series", channels=labelled(categories=("a",))
    ) as writer:
        for wrong in ([0, 1], "ab", ["a", None]):
            with pytest.raises(InputError, match=r"channel 'l': categories=.*list of names"):
                writer.name_categories("l", wrong)
        with pytest.raises(InputError, match=r"categories=\['b', 'a'\]: .*named \['a'\] already"):
            writer.name_categories("l", ["b", "a"])
        with pytest.raises(InputError, match="no label channel 'll', did you mean 'l'"):
            writer.name_categories("ll", ["a"])
        writer.append("a", 1, values=[1, 0])
        writer.name_categories("l", np.array(["a", "b"]))
    assert Recording.open(tmp_path / "r").labels[0].categories == ("a", "b")


def goes_on(path: Path, **given: Any) -> tuple[str, ...]:
    """The categories after one more row was appended to a recording whose label is given so."""
    channels = labelled(**given)
    with RecordingWriter(path, kind="series", channels=channels, append=True) as writer:
        writer.append("a", 2, values=[2, 1])
    return Recording.open(path).labels[0].categories


def test_appending_keeps_what_codes_mean(tmp_path: Path) -> None:
    path, known = tmp_path / "r", {"unit": "category", "delay_ns": 5}
    channels = labelled(categories=("idle", "busy"), **known)
    with RecordingWriter(path, kind="series", channels=channels) as writer:
        writer.append("a", 1, values=[1, 0])
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    for change, told in (
        ({"categories": ("busy", "idle")}, r"'l': categories=\['busy', 'idle'\]: .*already"),
        ({"unit": "s"}, "cannot append: channel 'l': unit='s', but .* 'category'"),
        ({"delay_ns": 6}, "cannot append: channel 'l': delay_ns=6, but .* 5"),
    ):
        with pytest.raises(InputError, match=told):
            goes_on(path, **(known | change))
    assert before == {file.name: file.read_bytes() for file in path.iterdir()}
    assert goes_on(path, **known) == ("idle", "busy")
    assert goes_on(path, categories=("idle",), **known) == ("idle", "busy")
    assert goes_on(path, categories=("idle", "busy", "off"), **known) == ("idle", "busy", "off")
    assert Recording.open(path).rows == 4


def test_appending_keeps_what_was_said_and_adds_to_it(tmp_path: Path) -> None:
    path, series = tmp_path / "r", {"kind": "series", "channels": [V], "append": True}
    for provenance in ({"site": "A", "by": "x"}, {"site": "A", "note": "after repair"}, None):
        with RecordingWriter(path, provenance=provenance, **series) as writer:
            writer.append("a", 1, values=[1])
    wanted = {"site": "A", "by": "x", "note": "after repair"}
    assert Recording.open(path).manifest.provenance == wanted
    with pytest.raises(InputError, match=r"provenance\['by'\]='y', but it says 'x' there; give"):
        RecordingWriter(path, provenance={"by": "y", "new": "z"}, **series)
    assert Recording.open(path).manifest.provenance == wanted


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"channels": [*labelled(), Channel("w")]}, r"no channel 'w' there \(channels: v, l\)"),
        ({"channels": [Channel("vv"), *labelled()]}, "no channel 'vv' there, did you mean 'v'"),
        ({"channels": [V]}, "channel 'l' is there, but not given"),
        ({"channels": labelled()[::-1]}, r"channels l, v: another order there \(channels: v, l"),
        ({"channels": [V, Channel("l", "action")]}, "'l': role='action', but .* have 'label'"),
        ({"channels": [Channel("v", unit="l/s"), labelled()[1]]}, "'v': unit='l/s', but .* ''"),
        (TOKENS, "kind='tokens', but the rows there have 'series'"),
    ],
)
def test_the_first_difference_of_what_is_appended_is_named(
    tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    series = {"kind": "series", "channels": labelled()}
    with RecordingWriter(tmp_path / "r", **series) as writer:
        writer.append("a", 1, values=[1, 0])
    with pytest.raises(InputError, match=f"cannot append: .*{told}.*write another recording"):
        RecordingWriter(tmp_path / "r", **(series | given), append=True)


def test_tokens_that_are_appended_have_the_names_they_had(tmp_path: Path) -> None:
    tokens = {"kind": "tokens", "tokenizer": "ids", "vocabulary": 2, "categories": ["x", "y"]}
    with RecordingWriter(tmp_path / "r", **tokens) as writer:
        writer.append("a", 1, tokens=1)
    for change, told in (
        ({"tokenizer": "bytes"}, "tokenizer='bytes', but .* 'ids'"),
        ({"vocabulary": 3}, "vocabulary=3, but .* 2"),
        ({"categories": ["x", "z"]}, r"categories\[1\]='z', but .* 'y'"),
        ({"categories": ["x"]}, r"len\(categories\)=1, but .* 2"),
    ):
        with pytest.raises(InputError, match=f"cannot append: {told}; give that, or write another"):
            RecordingWriter(tmp_path / "r", **(tokens | change), append=True)
