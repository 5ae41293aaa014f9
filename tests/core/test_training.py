"""Training: gradients run through sleep, no test row is read, the same seed repeats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch

import adaptive_sleep as asl
from adaptive_sleep.checkpoint import describe_model
from adaptive_sleep.config import decode
from adaptive_sleep.ledger import costs
from adaptive_sleep.reading_cost import sequence_flops
from adaptive_sleep.sleep import consolidate
from adaptive_sleep.training import backward, train, train_preset
from adaptive_sleep.training_data import fill_config, read_streams, sample
from adaptive_sleep.training_recipe import (
    DataRecipe,
    Recipe,
    TrainingRecipe,
    parse_passes,
    read_recipe,
)

SMALL = {
    "width": 16,
    "heads": 2,
    "fast_heads": 1,
    "key_dim": 8,
    "value_dim": 8,
    "patch": 3,
    "window": 12,
}
SHORT = TrainingRecipe(
    steps=12, batch=4, windows=3, bptt=3, validate_every=6, warmup=2, warm_events=60
)


def _wave(folder: Path, *, rows: int = 600, spoil: int | None = None) -> Path:
    """Two channels of a slow wave; from row `spoil` on, nonsense."""
    time = np.arange(rows, dtype=np.int64) * 10**9
    phase = np.arange(rows) / 9
    values = np.stack([np.sin(phase), np.cos(phase) * 3 + 5], 1)
    if spoil is not None:
        values[spoil:] = 1e6
    channels = [asl.Channel("a"), asl.Channel("b")]
    with asl.RecordingWriter(folder, kind="series", channels=channels) as writer:
        writer.append("s", time, values=values)
    return folder


def _recipe(recording: Path, **changes: object) -> Recipe:
    training = replace(SHORT, **changes)  # type: ignore[arg-type]
    return Recipe(model=SMALL, data=DataRecipe(recording=str(recording)), training=training)


def test_the_loss_falls_and_the_checkpoint_tells_its_making(tmp_path: Path) -> None:
    recipe = _recipe(_wave(tmp_path / "wave"), steps=60, validate_every=5, learning_rate=5e-3)
    told: list[float] = []
    trained = train(
        recipe, tmp_path / "m.safetensors", on_progress=lambda done, of, note: told.append(done)
    )
    assert told == list(range(1, 61))
    assert trained.log[-1]["validation@1"] < 0.8 * trained.log[0]["validation@1"]
    assert set(trained.validation) == {1, 4}
    header = describe_model(trained.path)
    assert header["provenance"]["chosen_step"] == f"{trained.step} of 60, on validation"
    assert header["config"]["channels"] == ["a", "b"]
    assert asl.load_model(trained.path).hash == header["hash"]


def test_a_model_knows_what_its_tokens_stand_for(tmp_path: Path) -> None:
    names, tokens = ("open", "send", "close"), np.arange(600) % 3
    with asl.RecordingWriter(
        tmp_path / "log", kind="tokens", tokenizer="categories", vocabulary=3, categories=names
    ) as writer:
        writer.append("s", np.arange(600) * 10**9, tokens=tokens)
    recipe = _recipe(tmp_path / "log", steps=2, validate_every=2)
    shape = {name: value for name, value in SMALL.items() if name != "patch"}
    trained = train(replace(recipe, model=shape), tmp_path / "m.safetensors")
    assert asl.load_model(trained.path).categories == names
    nameless = train(_recipe(_wave(tmp_path / "wave"), steps=2), tmp_path / "n.safetensors")
    assert asl.load_model(nameless.path).categories == ()


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    recording = _wave(tmp_path / "wave")
    first = train(_recipe(recording), tmp_path / "1.safetensors")
    again = train(_recipe(recording), tmp_path / "2.safetensors")
    other = train(_recipe(recording, seed=1), tmp_path / "3.safetensors")
    hashes = [asl.load_model(t.path).hash for t in (first, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_test_range_is_never_read(tmp_path: Path) -> None:
    clean = train(_recipe(_wave(tmp_path / "clean")), tmp_path / "1.safetensors")
    spoilt = train(_recipe(_wave(tmp_path / "spoilt", spoil=420)), tmp_path / "2.safetensors")
    assert asl.load_model(clean.path).hash == asl.load_model(spoilt.path).hash
    worse = train(_recipe(_wave(tmp_path / "worse", spoil=400)), tmp_path / "3.safetensors")
    assert worse.validation != clean.validation  # that part is read


def _gradients(passes: int, bptt: int, folder: Path) -> dict[str, torch.Tensor]:
    recording = asl.Recording.open(folder)
    config = decode(asl.ModelConfig, fill_config(dict(SMALL), recording))
    torch.manual_seed(3)
    model = asl.Model(config)
    data = read_streams(recording, config, 0, 400)
    batch = sample(data, config, np.random.default_rng(0), batch=3, windows=3, window=12)
    backward(model, batch, passes, replace(SHORT, bptt=bptt))
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_gradients_run_through_passes_and_windows(tmp_path: Path) -> None:
    folder = _wave(tmp_path / "wave")
    awake, asleep = _gradients(1, 3, folder), _gradients(3, 3, folder)
    assert "inject.weight" not in awake
    assert float(asleep["inject.weight"].norm()) > 0
    cut = _gradients(3, 1, folder)
    assert "inject.weight" not in cut  # what a sleep leaves is read only by the next window
    assert not torch.equal(asleep["face.read.weight"], cut["face.read.weight"])


def test_nobody_sleeps_on_the_last_window_of_a_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes after it; what is told of its cost agrees."""
    slept = []

    def counted(*given: Any) -> Any:
        slept.append(1)
        return consolidate(*given)

    monkeypatch.setattr("adaptive_sleep.training.consolidate", counted)
    _gradients(3, 3, _wave(tmp_path / "wave"))
    assert len(slept) == 2  # of three windows
    config = cases.tiny("series", window=12)
    window, price = np.full(2, 12), costs(config)
    single, three = (
        [sequence_flops(config, [window] * number, passes) for passes in (1, 4)]
        for number in (1, 3)
    )
    assert single[0] == single[1]
    assert three[1] - three[0] == 2 * 3 * price.sleep_pass(window, causal=True).sum()


def test_gradients_agree_with_finite_differences(tmp_path: Path) -> None:
    """Along a random direction of all weights, over two sleeps of three passes."""
    recording = asl.Recording.open(_wave(tmp_path / "wave"))
    config = decode(asl.ModelConfig, fill_config(dict(SMALL), recording))
    torch.manual_seed(5)
    model = asl.Model(config)
    data = read_streams(recording, config, 0, 400)
    settings = replace(SHORT, mean_weight=0.0)

    def loss() -> float:
        batch = sample(data, config, np.random.default_rng(0), batch=2, windows=3, window=12)
        model.zero_grad()
        return backward(model, batch, 3, settings)[0] / (2 * 3 * 12 * 2)

    loss()
    direction = [torch.randn_like(p) for p in model.parameters()]
    slope = sum(
        float((p.grad * d).sum())
        for p, d in zip(model.parameters(), direction, strict=True)
        if p.grad is not None
    )
    step = 2e-4
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(model.parameters(), direction, strict=True):
                p.add_(sign * step * d)
        values.append(loss())
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.03)


def test_tokens_train_by_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = np.tile(np.arange(7), 90)
    time = np.arange(len(text), dtype=np.int64)
    with asl.RecordingWriter(
        tmp_path / "text", kind="tokens", tokenizer="ids", vocabulary=7
    ) as writer:
        writer.append("t", time, tokens=text)
    preset = Recipe(
        model={n: v for n, v in SMALL.items() if n != "patch"},
        training=replace(SHORT, steps=60, learning_rate=1e-2, validate_every=30),
    )
    monkeypatch.setattr("adaptive_sleep.training.PRESETS", {"tokens": preset})
    trained = train_preset(tmp_path / "text", "tokens", tmp_path / "m.safetensors")
    assert trained.validation[1] < 0.5 * np.log(7)  # a cycle is learned
    with pytest.raises(asl.InputError, match="preset='series'"):
        train_preset(tmp_path / "text", "series", tmp_path / "n.safetensors")


def test_a_preset_is_of_the_recordings_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = _wave(tmp_path / "wave")
    presets = {
        "series": Recipe(model=SMALL, training=replace(SHORT, steps=1)),
        "tokens": Recipe(model={}, training=replace(SHORT, steps=1)),
    }
    monkeypatch.setattr("adaptive_sleep.training.PRESETS", presets)
    with pytest.raises(asl.InputError, match="preset='tokens': the recording holds series; use"):
        train_preset(recording, "tokens", tmp_path / "m.safetensors")
    trained = train_preset(recording, None, tmp_path / "m.safetensors")
    assert asl.load_model(trained.path).config.patch == SMALL["patch"]


def test_a_horizon_that_would_not_be_trained_is_refused(tmp_path: Path) -> None:
    recipe = _recipe(_wave(tmp_path / "wave"))
    with pytest.raises(asl.InputError, match=r"\[model\] horizon=3: .* leave it out"):
        train(replace(recipe, model={**SMALL, "horizon": 3}), tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nstep = 5", "unknown field 'step', did you mean 'steps'"),
        ("[training]\nsteps = 'many'", "int"),
        ("[data]\ntrain = [0, 1]", "recording is missing"),
        ("steps = ", "not valid TOML"),
    ],
)
def test_recipes_are_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(asl.InputError, match=message):
        read_recipe(path)


@pytest.mark.parametrize("text", ["0", "4-1", "a", "1-2-3", "", "²", "1-²"])
def test_passes_are_read_strictly(text: str) -> None:
    with pytest.raises(asl.InputError, match="passes"):
        parse_passes(text)
    assert parse_passes("1-4") == (1, 4)
    assert parse_passes("2") == (2, 2)


def test_what_was_best_before_training_diverged_is_kept(tmp_path: Path) -> None:
    """Warm-up is long, so that some validations come before the rate is too high."""
    wild = {"steps": 40, "validate_every": 2, "warmup": 30, "learning_rate": 1e3}
    recipe, out = _recipe(_wave(tmp_path / "wave"), **wild), tmp_path / "m.safetensors"
    with pytest.raises(asl.InputError, match=r"learning_rate=1000.0: .*; lower it; what was best"):
        train(recipe, out)
    assert not out.exists()  # where it would pass for a whole training
    out = tmp_path / "m-diverged.safetensors"
    assert describe_model(out)["provenance"]["chosen_step"] == "2 of 40, on validation"
    assert 2 <= int(describe_model(out)["provenance"]["steps"]) < 40
    assert asl.load_model(out).config.width == 16
    kept = out.read_bytes()
    with pytest.raises(asl.InputError, match=r"is in .*m-diverged-2\.safetensors$"):
        train(recipe, tmp_path / "m.safetensors")
    assert out.read_bytes() == kept
    (tmp_path / "m-diverged-2.safetensors").unlink()
    recipe = _recipe(tmp_path / "wave", **{**wild, "warmup": 0, "learning_rate": 1e30})
    with pytest.raises(asl.InputError, match=r"1e\+30: step \d+ came to .*; lower it$"):
        train(recipe, tmp_path / "none.safetensors")
    assert sorted(file.name for file in tmp_path.glob("*.safetensors")) == [out.name]


def test_a_validation_that_holds_nothing_is_not_blamed_on_the_rate(tmp_path: Path) -> None:
    recipe = _recipe(_wave(tmp_path / "wave"))
    recipe = replace(recipe, data=replace(recipe.data, validation=(0.998, 0.999)))
    with pytest.raises(asl.InputError, match=r"^\[data\] validation: the range holds nothing"):
        train(recipe, tmp_path / "m.safetensors")


def test_too_short_a_recording_is_refused(tmp_path: Path) -> None:
    recording = _wave(tmp_path / "wave", rows=40)
    with pytest.raises(asl.InputError, match="need 36 events in a stream, the longest has 24"):
        train(_recipe(recording), tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()
