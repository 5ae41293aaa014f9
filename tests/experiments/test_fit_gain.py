"""What is fitted to counterfactuals pays on others, and its file does what the table promised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.compare_fits import fitted
from adaptive_sleep.experiments.comparing import FITS
from adaptive_sleep.experiments.counterfactual import counterfactuals
from adaptive_sleep.experiments.fit_gain import fit_gain, outcome, predicted, slept, told
from adaptive_sleep.experiments.gain_cases import Cases, Origin, _joined, read_cases, split
from adaptive_sleep.experiments.gain_training import Recipe, train
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.policies.gain_file import read_gain
from adaptive_sleep.policies.gain_network import savings
from adaptive_sleep.streams.errors import InputError

CHAIN = "bundled:chain"
QUICK = Recipe(hidden=8, epochs=2)
ORIGIN = Origin("0" * 64, 3, 1, 4, ("made up",))


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten windows in each of four streams."""
    out = tmp_path_factory.mktemp("forks") / "forks"
    counterfactuals("bundled:chain-validation", CHAIN, "fixed(3)", out, most=3,
                    gap_seconds=0.5, stop=1440)  # fmt: skip
    return out


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first window of four other streams."""
    out = tmp_path_factory.mktemp("few") / "forks"
    counterfactuals(CHAIN, CHAIN, "fixed(3)", out, most=3, gap_seconds=0.5, stop=144)
    return out


def made(windows: int, seed: int, streams: int = 8) -> Cases:
    """Windows whose summary after each pass tells, among noise, whether it was the last to pay."""
    draw = np.random.default_rng(seed)
    needed = draw.integers(1, 4, windows)
    done = np.arange(1, 4) >= needed[:, None]
    loss = np.where(done, 0.01, 0.5) * draw.lognormal(0, 0.3, (windows, 3))
    summary = draw.normal(0, 0.5, (windows, 3, 4))
    summary[..., 2] += 2 * done
    changes = draw.lognormal(0, 0.1, (2, windows, 3))
    changes[1, :, 0] = np.nan
    return Cases(
        loss=loss,
        cost=loss,
        all_right=done,
        state_change=changes[0],
        hidden_change=changes[1],
        summary=summary.astype(np.float32),
        stream=np.array([f"r/{row % streams}" for row in range(windows)], dtype=object),
        window=np.arange(windows) // streams,
        last=np.arange(windows) // streams + 2,
        cut=np.full(windows, "window=4", dtype=object),
    )


def test_what_was_fitted_saves_passes_on_windows_held_out() -> None:
    fit, held = made(600, 0), made(300, 1)
    how = Recipe(hidden=16, batch=32, epochs=12)
    gain = train(fit, held, ORIGIN, {}, 0, how)
    found = told(gain, Path("nowhere"), fit, held)
    assert found.error < 0.5 * found.error_of_mean
    least = outcome(held, 1 + held.all_right.argmax(1), None)
    best = [it for it in found.thresholds if it.all_right is not None and it.all_right > 0.98]
    assert min(it.mean_passes for it in best) < least.mean_passes + 0.1
    assert [it.mean_passes for it in found.fixed] == [1, 2, 3]
    assert found.fixed[-1].all_right == 1.0
    passes = [it.mean_passes for it in found.thresholds]
    # they are told about evenly, from where nothing sleeps to where all do that may
    assert max(-np.diff(passes)) < 0.2 * (passes[0] - passes[-1])
    assert passes[-1] < 1.01
    assert passes == sorted(passes, reverse=True)


def test_the_same_windows_and_seed_give_the_same_network() -> None:
    fit, held = made(60, 0), made(60, 1)
    first, same, other = (
        train(fit, held, ORIGIN, {}, seed, QUICK).network.weights[0].tobytes() for seed in (0, 0, 1)
    )
    assert first == same != other


losses = st.lists(
    st.lists(st.integers(0, 40).map(lambda it: it / 8), min_size=4, max_size=4), min_size=1
)


@given(losses, st.integers(0, 50).map(lambda it: (it + 0.5) / 64))
def test_who_knows_the_savings_finds_the_least_cost(loss: list[list[float]], price: float) -> None:
    table = np.array(loss)
    known = np.repeat(savings(table)[:, None], 3, axis=1)  # the same after every pass
    passes = slept(known, price)
    cost = table + price * np.arange(4)
    np.testing.assert_array_equal(cost[np.arange(len(table)), passes - 1], cost.min(1))


@pytest.mark.parametrize("streams", [1, 3, 4, 9])
def test_windows_held_out_share_nothing_with_the_others(streams: int) -> None:
    cases = made(400, 0, streams)
    fit, held = split(cases, 0)
    assert 0.2 <= len(held) / len(cases) <= 0.34
    for name in set(fit.stream) & set(held.stream):
        assert streams < 4
        after = held.window[held.stream == name].min()
        assert fit.last[fit.stream == name].max() < after
    if streams >= 4:
        assert len(fit) + len(held) == len(cases)
        assert not set(fit.stream) & set(held.stream)
    else:
        assert set(fit.stream) == set(held.stream)
        assert len(fit) >= 0.7 * len(cases)


def test_streams_cut_in_two_ways_are_held_out_whole_or_not_at_all() -> None:
    """The same index would be of other events."""
    parts = [
        replace(made(80, seed, 4), cut=np.full(80, f"window={seed}", dtype=object))
        for seed in (1, 2)
    ]
    both = _joined(parts)
    fit, held = split(both, 0)
    assert not set(fit.stream) & set(held.stream)
    few = both.select(np.flatnonzero(both.stream != "r/3"))
    with pytest.raises(InputError, match=r"forks: r/0 is cut in 2 ways \(window=1; window=2\)"):
        split(few, 0)


def test_folders_of_one_recording_are_cut_alike(tmp_path: Path) -> None:
    name, base = "bundled:telemetry", {"start": 0.96, "most": 2}
    others: dict[str, dict[str, Any]] = {
        "same": {}, "shorter": {"window": 16}, "later": {"start": 0.97}, "stopped": {"stop": 0.99},
    }  # fmt: skip
    for out, other in others.items():
        counterfactuals(name, name, "fixed(1)", tmp_path / out, **(base | other))
    out = tmp_path / "gain.safetensors"
    for folder, said in (("shorter", "window=16"), ("later", "start=18612")):
        with pytest.raises(InputError, match=f"is cut in 2 ways .*{said}"):
            fit_gain([tmp_path / "same", tmp_path / folder], out, how=QUICK)
    assert fit_gain([tmp_path / "same", tmp_path / "stopped"], out, how=QUICK).held_out > 0


def test_a_fit_that_only_harms_is_not_kept() -> None:
    """What is learned is the contrary of what holds on the windows held out."""
    fit, held = made(200, 0), made(200, 1)
    held = replace(held, summary=-held.summary)
    how = Recipe(hidden=16, batch=32, epochs=6, rate=0.05)
    begun, kept = (train(fit, held, ORIGIN, {}, 0, replace(how, epochs=n)) for n in (0, 6))
    for one, other in zip(begun.network.weights, kept.network.weights, strict=True):
        assert one.tobytes() == other.tobytes()


def test_fitted_to_errors_a_budget_buys_right_windows_and_not_sure_mistakes() -> None:
    """A window that needs two more passes loses six times what one that needs one does: by loss it
    comes first, by errors last."""

    def sure(windows: int, seed: int) -> Cases:
        cases = made(windows, seed)
        assert cases.all_right is not None
        late = ~cases.all_right[:, 1]
        loss = np.where(cases.all_right, 0.01, np.where(late[:, None], 6.0, 1.0))
        summary = cases.summary.copy()
        summary[..., 3] += 2 * late[:, None]
        return replace(cases, loss=loss, cost=loss, summary=summary)

    fit, held = sure(900, 0), sure(400, 1)
    budget, best = 1.5, {}
    for of in ("loss", "errors"):
        sides = [it if of == "loss" else replace(it, cost=1.0 - it.all_right) for it in (fit, held)]
        saving = predicted(train(*sides, ORIGIN, {}, 0, Recipe(hidden=16, batch=32)), held)
        found = [outcome(held, slept(saving, it), it) for it in np.geomspace(0.01, 6, 60)]
        best[of] = max(it.all_right for it in found if it.mean_passes <= budget)
    assert best["errors"] > best["loss"] + 0.05


def test_what_is_to_be_saved_is_read_from_the_table(forks: Path) -> None:
    cases, _ = read_cases([forks], "errors")
    assert cases.all_right is not None
    np.testing.assert_array_equal(cases.cost, 1.0 - cases.all_right)
    assert 0 < cases.cost.mean() < 1
    np.testing.assert_array_equal(cases.loss, read_cases([forks])[0].cost)
    with pytest.raises(InputError, match=r"of='eror': one of loss, errors, did you mean 'errors'"):
        read_cases([forks], "eror")  # type: ignore[arg-type]


def test_a_comparison_fits_what_its_recipe_names(forks: Path, tmp_path: Path) -> None:
    said = {it: read_gain(fitted(it, forks, tmp_path, 0)).provenance["of"] for it in FITS}
    assert said == {"gain": "loss", "gain_of_errors": "errors"}


def test_too_few_windows_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 windows of 1 stream\(s\) are too few"):
        split(made(2, 0, 1), 0)


def test_cases_are_what_the_table_says(forks: Path) -> None:
    cases, origin = read_cases([forks])
    assert len(cases) == 40
    assert (origin.most, origin.horizon, origin.width) == (3, 1, 128)
    assert origin.model_hash == open_run(forks / "run").manifest.model.hash
    assert cases.summary.shape == (40, 3, 128)
    assert np.isnan(cases.hidden_change[:, 0]).all()
    assert np.isfinite(cases.hidden_change[:, 1:]).all()
    assert (cases.last == cases.window + 1).all()
    trace = open_run(forks / "run").trace().sort("stream", "window").collect()
    answers = trace.filter(trace["asked"] > 0)  # of the windows before them, slept on 3 times
    np.testing.assert_array_equal(cases.all_right[:, 2], answers["right"] == answers["asked"])
    np.testing.assert_allclose(cases.loss[:, 2], answers["loss"], rtol=1e-5)
    both, _ = read_cases([forks, forks])
    np.testing.assert_array_equal(both.loss, np.tile(cases.loss, (2, 1)))


def test_its_file_sleeps_as_the_table_promised(forks: Path, few: Path, tmp_path: Path) -> None:
    """On the first windows of streams, before which nothing differs."""
    found = fit_gain([forks], tmp_path / "gain.safetensors", how=QUICK)
    gain = read_gain(found.file)
    assert gain.provenance["windows"] == str(found.windows) == "30"
    cases, _ = read_cases([few])
    saving = predicted(gain, cases)
    threshold = float(np.median(saving[:, 0, 0])) + 1e-9
    spec = f"predicted_gain({str(found.file)!r}, threshold={threshold!r})"
    replay(CHAIN, CHAIN, spec, tmp_path / "run", gap_seconds=0.5, stop=144)
    trace = open_run(tmp_path / "run").trace().sort("stream", "window").collect()
    passes = trace.filter(trace["asked"] == 0)["passes"].to_list()
    assert passes == slept(saving, threshold).tolist()
    assert len(set(passes)) > 1
    with pytest.raises(InputError, match="was fitted to model"):
        replay("bundled:telemetry", "bundled:telemetry", spec, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_same_forks_and_seed_give_the_same_file(forks: Path, tmp_path: Path) -> None:
    files = [
        fit_gain([forks], tmp_path / f"{name}.safetensors", seed=seed, how=QUICK).file.read_bytes()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert files[0] == files[1] != files[2]


def test_what_cannot_be_fitted_together_is_refused(forks: Path, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "gain.safetensors"
    other = tmp_path / "other"
    counterfactuals(CHAIN, CHAIN, "fixed(1)", other, most=2, gap_seconds=0.5, stop=144)
    for folders, held, said in (
        ([], [], "at least one folder"),
        ([forks, other], [], "most is 3 in .* but 2 in"),
        ([forks, other, forks / "..", forks], [], "forks is given 2 times; give each folder once"),
        ([forks], [other], "most is 3 in .* but 2 in"),
        ([forks], [few, forks], "4 of its streams are also among those to fit"),
        ([tmp_path], [], "no counterfactual.json there"),
    ):
        with pytest.raises(InputError, match=said):
            fit_gain(folders, out, held_out=held, how=QUICK)
        assert not out.exists()
    with pytest.raises(InputError, match="seed=-1: a whole number from 0"):
        fit_gain([forks], out, seed=-1)
    out.touch()
    with pytest.raises(InputError, match="exists already"):
        fit_gain([forks], out)
    with pytest.raises(InputError, match="does not exist"):
        fit_gain([forks], tmp_path / "nowhere" / "gain.safetensors")


def test_a_model_that_answers_nothing(tmp_path: Path) -> None:
    name, given = "bundled:telemetry", {"start": 0.96}
    counterfactuals(name, name, "fixed(2)", tmp_path / "forks", most=2, **given)
    found = fit_gain([tmp_path / "forks"], tmp_path / "gain.safetensors", how=QUICK)
    assert {it.all_right for it in (*found.fixed, *found.thresholds)} == {None}
    assert found.fixed[0].loss > 0
    with pytest.raises(InputError, match=r"of='errors': the model of .* answers no questions"):
        fit_gain([tmp_path / "forks"], tmp_path / "errors.safetensors", of="errors")


def test_the_command(forks: Path, few: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["fit-gain", str(forks), "--held-out", str(few), "--out"]
    assert main([*command, str(tmp_path / "a.safetensors"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["windows"], found["held_out"]) == (40, 4)
    assert read_gain(tmp_path / "a.safetensors").provenance["of"] == "loss"
    errors = [*command, str(tmp_path / "errors.safetensors"), "--of", "errors", "--json"]
    assert main(errors) == 0
    assert read_gain(tmp_path / "errors.safetensors").provenance["of"] == "errors"
    again = json.loads(capsys.readouterr().out)
    assert (found["of"], again["of"]) == ("loss", "errors")
    assert again["fixed"] == found["fixed"]
    assert found["file"] == str(tmp_path / "a.safetensors")
    assert len(found["fixed"]) == 3
    assert found["fixed"][0]["threshold"] is None
    assert main([*command, str(tmp_path / "b.safetensors")]) == 0
    out, err = capsys.readouterr()
    assert f"{100 * found['fixed'][1]['all_right']:.1f} %" in out
    assert "predicted_gain(file=" in err
    assert main([*command, str(tmp_path / "b.safetensors")]) == 2
