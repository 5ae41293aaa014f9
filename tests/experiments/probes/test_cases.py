"""Which rows of a recording are for what, and which of them are labelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_cases import make_sets

from adaptive_sleep.experiments.probes.cases import bundled_case, find_cases, first_part
from adaptive_sleep.experiments.probes.folder import find_folder
from adaptive_sleep.streams.errors import InputError

NAB = (
    "Twitter_volume_AAPL",
    "Twitter_volume_AMZN",
    "ec2_request_latency_system_failure",
    "machine_temperature_system_failure",
    "nyc_taxi",
)


def test_the_first_part_ends_at_a_label_within_bounds() -> None:
    flags = np.zeros(100, dtype=np.bool_)
    assert first_part(flags) == 40
    for first, expected in ((90, 40), (25, 25), (3, 15)):
        flags[:] = False
        flags[first:] = True
        assert first_part(flags) == expected


def test_made_sets_are_split_by_their_labels(tmp_path: Path) -> None:
    data = make_sets(tmp_path / "data")
    made, arrays, _ = find_cases(data, tmp_path / "out")
    assert (made.name, made.test, made.validation) == ("made", 160, 112)
    assert np.flatnonzero(made.flags).tolist() == list(range(250, 280))
    assert (arrays.name, arrays.test, arrays.validation) == ("omi-1", 240, 168)
    assert np.flatnonzero(arrays.flags).tolist() == list(range(280, 320))
    again = find_cases(data, tmp_path / "out")  # over what is there
    assert [case.sha256 for case in again[:2]] == [made.sha256, arrays.sha256]


def test_the_bundled_recording_is_labelled_where_its_phase_changes() -> None:
    case = bundled_case()
    assert case.flags.sum() == 113  # 114 phases
    assert not case.flags[0]
    assert (case.validation, case.test) == (round(0.6 * 19188), round(0.7 * 19188))


def test_real_sets_are_read_as_they_are(real: Callable[[str], Path], tmp_path: Path) -> None:
    data = real("nab/windows.json").parents[1]
    real("asd/omi-1.npz")
    cases = {case.name: case for case in find_cases(data, tmp_path)}
    assert set(cases) == {*NAB, "omi-1", "telemetry"}
    assert cases["omi-1"].test == 8640
    flags = cases["omi-1"].flags
    assert flags[8640:].mean() == pytest.approx(0.102, abs=5e-4)
    assert (np.diff(flags.astype(int)) == 1).sum() == 7  # segments
    for name in NAB:
        case, rows = cases[name], len(cases[name].flags)
        assert 0.15 <= round(case.test / rows, 3) <= 0.40
        assert 0.05 < case.flags[case.test :].mean() < 0.20


def test_a_folder_is_sought_and_what_it_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADAPTIVE_SLEEP_DATA", raising=False)
    needed = ("nab/windows.json",)
    with pytest.raises(InputError, match=r"ADAPTIVE_SLEEP_DATA.*sought: data"):
        find_folder(None, needed, what="files of NAB")
    with pytest.raises(InputError, match="there is no such folder"):
        find_folder(tmp_path / "none", needed, what="files of NAB")
    data = make_sets(tmp_path / "sets")
    with pytest.raises(InputError, match=r"no nabb/windows.json.*did you mean 'nab'"):
        find_folder(data, ("nabb/windows.json",), what="files of NAB")
    assert find_folder(data, needed, what="files of NAB") == data
    monkeypatch.setenv("ADAPTIVE_SLEEP_DATA", str(data))
    assert find_folder(None, needed, what="files of NAB") == data
