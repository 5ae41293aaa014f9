"""Passes where something is still to be gained, by a file that belongs to one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_gains import WIDTH, constant, drawn, saved
from policy_cases import Course
from safetensors.numpy import load_file, save_file

import adaptive_sleep as asl
from adaptive_sleep.contract import (
    keep_going,
    load_policy_state,
    plan_passes,
    policy_flops,
    policy_state,
)
from adaptive_sleep.policies import PredictedGain
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import check_policy, make_progress, make_signals


@pytest.fixture
def file(tmp_path: Path) -> str:
    return saved(tmp_path, drawn())


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.03])
def test_it_conforms(file: str, threshold: float) -> None:
    check_policy(PredictedGain(file, threshold))
    check_policy(f"capped(predicted_gain({file!r}, {threshold}), max_passes=3)")


def test_its_spec_string_leads_back_to_it(tmp_path: Path) -> None:
    policy = PredictedGain(saved(tmp_path, drawn(), 'it\'s "my" gain.safetensors'), 0.03)
    assert resolve(str(policy)) == policy
    assert str(resolve(str(policy))) == format_spec(policy) == str(policy)


def test_a_stream_gets_what_it_gets_alone(file: str) -> None:
    """To the bit: a product over other batches would round differently."""
    policy, seen = PredictedGain(file, 0.02), set()
    for seed in range(5):
        signals, progress = make_signals(33, seed), make_progress(33, seed)
        passes, going = plan_passes(policy, signals), keep_going(policy, progress)
        network = policy._gain.network
        whole = network.run(np.tile(signals.summary, 3)[:, : network.inputs])
        for row in range(33):
            alone = network.run(np.tile(signals.summary[[row]], 3)[:, : network.inputs])
            assert alone.tobytes() == whole[[row]].tobytes()
            assert plan_passes(policy, signals.select([row])) == passes[row]
            assert keep_going(policy, progress.select([row])) == going[row]
        seen |= {*passes.tolist(), *going.tolist()}
    assert seen >= {1, 2, 3, 4, False}


@pytest.mark.parametrize(
    ("savings", "passes"),
    [
        ([0.2, 0.2, 0.2], 4),
        ([0.2, 0.05, 0.05], 2),
        ([0.2, 0.05, 0.2], 4),  # the last that may pay
        ([0.05, 0.2, 0.2], 1),
        ([0.1, 1e-9, 1e-30], 2),  # the bar itself is enough
    ],
)
def test_it_plans_up_to_the_last_pass_that_may_pay(
    tmp_path: Path, savings: list[float], passes: int
) -> None:
    policy = PredictedGain(saved(tmp_path, constant(savings)), 0.0999999)
    assert plan_passes(policy, make_signals(3, 0)).tolist() == [passes] * 3
    limited = plan_passes(policy, make_signals(3, 0, max_passes=[1, 2, 20]))
    assert limited.tolist() == [1, min(passes, 2), passes]


def test_it_stops_where_nothing_is_left_and_beyond_what_it_knows(tmp_path: Path) -> None:
    policy = PredictedGain(saved(tmp_path, constant([1e-9, 0.2, 1e-9, 0.2])), 0.1)
    progress = make_progress(5, 0, passes=[2, 3, 4, 5, 6])
    assert keep_going(policy, progress).tolist() == [True, False, True, False, False]


def test_a_pass_must_also_save_its_price(tmp_path: Path) -> None:
    policy = PredictedGain(saved(tmp_path, constant([0.2, 0.2])), 0.1)
    flops = [1_000_000] * 2
    cheap = make_signals(2, 0, pass_flops=flops, price=[0.0, 0.9e-7])
    dear = make_signals(2, 0, pass_flops=flops, price=[0.0, 1.1e-7])
    progress = make_progress(2, 0)
    assert plan_passes(policy, cheap).tolist() == [3, 3]
    assert keep_going(policy, progress).tolist() == [True, True]
    assert plan_passes(policy, dear).tolist() == [3, 1]
    assert keep_going(policy, progress).tolist() == [True, False]


def test_it_sleeps_less_with_a_higher_threshold(file: str) -> None:
    means = [
        np.mean(list(Course(3).play(PredictedGain(file, threshold), 20).values()))
        for threshold in (0.0, 0.003, 0.01, 0.03, 10.0)
    ]
    assert means == sorted(means, reverse=True)
    assert means[0] > means[2] > means[-1] == 1.0


def test_it_is_charged_for_every_time_it_may_look(file: str) -> None:
    rows = 2 * ((WIDTH + 2 + 3) * 12 + 12 * 3)
    assert policy_flops(PredictedGain(file), 5) == 5 * 3 * rows


def test_a_run_does_not_go_on_with_another_file(tmp_path: Path) -> None:
    one, same, other = (
        PredictedGain(saved(tmp_path, drawn(seed), f"{name}.safetensors"))
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    load_policy_state(same, policy_state(one))
    with pytest.raises(InputError, match=r"other\.safetensors': holds .* began with"):
        load_policy_state(other, policy_state(one))


def test_a_summary_of_another_width_is_refused(file: str) -> None:
    policy = PredictedGain(file)
    for ask in (
        lambda: plan_passes(policy, make_signals(2, 0, summary_width=8)),
        lambda: keep_going(policy, make_progress(2, 0, summary_width=8)),
    ):
        with pytest.raises(InputError, match=r"summary: 8 wide, .* with 16; fit"):
            ask()


def damaged(path: Path, how: str) -> None:
    data, tensors = bytearray(path.read_bytes()), load_file(path)
    match how:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("surprise(threshold=0.8)\n" * 40)
        case "cut off":
            path.write_bytes(data[:-5])
        case "a bit":
            data[-3] ^= 1
            path.write_bytes(data)
        case "the header":
            path.write_bytes(data.replace(b'most\\": 4', b'most\\": 5'))
        case "of another kind":
            save_file(tensors, path, metadata={"schema": "1"})
        case "newer":
            path.write_bytes(data.replace(b'schema\\": 1', b'schema\\": 2'))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("gone", "no such file; expected one of fit-gain"),
        ("empty", "not a readable safetensors file"),
        ("text", "not a readable safetensors file"),
        ("cut off", "not a readable safetensors file"),
        ("a bit", "digest differs"),
        ("the header", "digest differs"),
        ("of another kind", "not a gain file"),
        ("newer", "schema 2; this version reads 1"),
    ],
)
def test_a_file_that_is_not_sound_is_refused_when_made(file: str, how: str, said: str) -> None:
    damaged(Path(file), how)
    with pytest.raises(InputError, match=said) as refused:
        resolve(f"predicted_gain(file={file!r})")
    assert "gain.safetensors" in str(refused.value)


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf"), True])
def test_a_threshold_that_cannot_be_is_refused(file: str, threshold: Any) -> None:
    with pytest.raises(InputError, match=r"threshold=.*expected a finite number from 0 up"):
        PredictedGain(file, threshold)


CONFIG = asl.ModelConfig(
    kind="tokens", vocabulary=17, width=WIDTH // 2, layers=("deltanet", "attention"), heads=2,
    fast_heads=2, key_dim=8, value_dim=8, window=8,
)  # fmt: skip


def piece(seed: int) -> asl.Piece:
    time, draw = np.arange(8) + 8 * seed, np.random.default_rng(seed)
    return asl.Piece("a", asl.Events(time, tokens=draw.integers(0, 17, 8)), closes=True)


def test_a_runtime_takes_it_for_its_own_model_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    mine, other = asl.Model(CONFIG), asl.Model(CONFIG)
    file = saved(tmp_path, constant([0.2, 0.2, 1e-9], model_hash=mine.hash))
    own = f"predicted_gain({file!r})"
    assert asl.Runtime(mine, own).step([piece(0)]).rows[0].passes == 3
    for spec in (
        own,
        f"capped({own}, 2)",
        f"either(fixed(2), cooldown({own}))",
        f"budgeted(both({own}, surprise), flops_per_event=1e6)",
        f"per_stream({{'a*': {own}}}, otherwise=fixed(1))",
    ):
        asl.Runtime(mine, spec)
        with pytest.raises(InputError, match="was fitted to model") as refused:
            asl.Runtime(other, spec)
        assert mine.hash[:12] in str(refused.value)
        assert other.hash[:12] in str(refused.value)


def test_a_run_goes_on_from_disk_with_the_same_file_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = asl.Model(CONFIG).eval()
    spec = f"predicted_gain({saved(tmp_path, drawn(model_hash=model.hash))!r}, threshold=0.01)"
    runtime = asl.Runtime(model, spec)
    rows = [row for turn in range(8) for row in runtime.step([piece(turn)]).rows]
    assert len({row.passes for row in rows}) > 1
    (tmp_path / "state").mkdir()
    runtime.save(tmp_path / "state")
    again = asl.Runtime.resume(tmp_path / "state", model, spec)
    for turn in range(8, 12):
        assert again.step([piece(turn)]).rows == runtime.step([piece(turn)]).rows
    saved(tmp_path, drawn(seed=1, model_hash=model.hash))
    with pytest.raises(InputError, match="give it the file that it began with"):
        asl.Runtime.resume(tmp_path / "state", model, spec)
