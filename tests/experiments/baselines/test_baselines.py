"""Every baseline is real: its knob costs, it is trained, replayed, killed and resumed as all is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from baseline_cases import SAMPLES, measure_on, recorded, small

from adaptive_sleep.experiments.baselines.registry import BASELINES, find_baseline
from adaptive_sleep.experiments.baselines.setup import plain
from adaptive_sleep.experiments.matching import Measure
from adaptive_sleep.experiments.replay import Progress, replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.learning import config_of
from adaptive_sleep.spec import resolve
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tasks.recorded import GAP_SECONDS
from adaptive_sleep.task_training import learn

RECIPE = small()
KNOBS = {
    "wider_state": (8, 12),
    "deeper": (2, 3),
    "larger_window": (6, 20),
    "wake_loops": (1, 3),
    "taught_loops": (1, 3),
    "compressed_kv": (2, 9),
    "memory_tokens": (0, 3),
    "retrieval": (33, 36),
    "fixed": (1, 3),
    "random": (0, 150),
    "periodic": (1, 3),
}

LOOPS = ("wake_loops", "taught_loops")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return recorded(tmp_path_factory.mktemp("baselines") / "chain", RECIPE)


@pytest.fixture(scope="module")
def measure(recording: Recording) -> Measure:
    return measure_on(recording)


def test_the_knobs_here_are_those_of_all_baselines() -> None:
    assert list(KNOBS) == list(BASELINES)
    for name, baseline in BASELINES.items():
        least, most = baseline.bounds(RECIPE)
        assert least <= KNOBS[name][0] < KNOBS[name][1] <= most


@pytest.mark.parametrize("name", KNOBS)
def test_a_higher_knob_costs_more(name: str, measure: Measure) -> None:
    setups = [BASELINES[name].setup(RECIPE, knob) for knob in KNOBS[name]]
    low, high = (measure(setup) for setup in setups)
    assert low.flops_per_event < high.flops_per_event
    assert low.resident_bytes <= high.resident_bytes


@pytest.mark.parametrize(
    "name",
    ["wider_state", "deeper", "wake_loops", "taught_loops", "memory_tokens", "fixed", "random"],
)
def test_the_least_knob_is_the_plain_hybrid(name: str, measure: Measure) -> None:
    baseline = BASELINES[name]
    least, _ = baseline.bounds(RECIPE)
    bare, same = measure(plain(RECIPE)), measure(baseline.setup(RECIPE, least))
    assert same.flops_per_event == bare.flops_per_event
    assert config_of(baseline.setup(RECIPE, least).recipe) == config_of(RECIPE)


@pytest.mark.parametrize("name", KNOBS)
def test_a_baseline_is_trained_replayed_and_resumed(
    name: str, recording: Recording, tmp_path: Path
) -> None:
    setup = BASELINES[name].setup(RECIPE, KNOBS[name][1])
    learned = learn(setup.recipe, tmp_path / "training", seed=1)
    assert learned.steps == 4
    kept: dict[str, Any] = {
        "gap_seconds": GAP_SECONDS,
        "commit_every": 3,
        "eviction": setup.recipe.eviction,
        "keep": setup.recipe.keep,
    }
    whole = replay(recording, learned.path, setup.policy, tmp_path / "whole", **kept)
    assert open_run(tmp_path / "whole").trace().collect()["asked"].gt(0).sum() == SAMPLES

    half = tmp_path / "half"
    with pytest.raises(StoppedError):
        replay(recording, learned.path, setup.policy, half, on_progress=_stop, **kept)
    assert 0 < len(open_run(half).positions) < len(open_run(tmp_path / "whole").positions)
    again = replay(recording, learned.path, setup.policy, half, resume=True, **kept)
    assert again.trace_sha256 == whole.trace_sha256
    assert again.flops_per_event == whole.flops_per_event


class StoppedError(Exception):
    """A run is broken off."""


def _stop(progress: Progress) -> None:
    if progress.windows > SAMPLES:  # half of the windows
        raise StoppedError


def test_sleep_is_left_out_of_training_where_nothing_sleeps() -> None:
    for name, (_, knob) in KNOBS.items():
        setup = BASELINES[name].setup(RECIPE, knob)
        awake = name not in ("fixed", "random", "periodic")
        assert (setup.recipe.training.passes == "1") is awake
        assert setup.policy == "fixed(passes=1)" or not awake
        resolve(setup.policy)


def test_each_turns_its_own_knob_alone() -> None:
    config = config_of(RECIPE)
    made = {n: BASELINES[n].setup(RECIPE, knob) for n, (_, knob) in KNOBS.items()}
    assert made["wider_state"].config.value_dim == 12
    assert made["deeper"].config.layers == (config.layers[0], *config.layers)
    assert made["wake_loops"].config == made["taught_loops"].config
    assert made["wake_loops"].config.loops == 3
    assert made["memory_tokens"].config.memory_tokens == 3
    window, pressed = made["larger_window"].recipe, made["compressed_kv"].recipe
    assert (window.eviction, window.keep) == ("sliding", 20)
    assert (pressed.eviction, pressed.keep) == ("heaviest", 9)
    stored = made["retrieval"].recipe
    assert (stored.eviction, stored.keep) == ("retrieve", 36)
    assert {config_of(recipe).positions for recipe in (window, pressed, stored)} == {"rotary"}


@pytest.mark.parametrize(
    ("knob", "layers"),
    [(3, "AAD"), (4, "AAAD"), (5, "AAAAD"), (6, "AAAADD"), (7, "AAAAADD")],
)
def test_deeper_repeats_layers_in_place_and_ends_with_the_last(knob: int, layers: str) -> None:
    names = {"A": "attention", "D": "deltanet"}
    recipe = small(model={"layers": ["attention", "attention", "deltanet"]})
    made = find_baseline("deeper").setup(recipe, knob).config.layers
    assert made == tuple(names[each] for each in layers)


def test_training_goes_on_for_as_long_as_attention_takes_to_fill() -> None:
    longer = find_baseline("larger_window").setup(RECIPE, 54).recipe.training
    assert longer.carry_over == pytest.approx(0.9)  # ten windows of 6 in a row, on average
    assert find_baseline("larger_window").setup(RECIPE, 6).recipe.training.carry_over == 0.5
    fresh = small(training={"carry_over": 0.0})  # each sample has a stream of its own
    assert find_baseline("larger_window").setup(fresh, 54).recipe.training.carry_over == 0.0


@pytest.mark.parametrize(("name", "knob"), [("larger_window", 54), ("compressed_kv", 36)])
def test_what_holds_more_learns_one_window_alone_first(name: str, knob: int) -> None:
    stages = {"stages": [[1], [2], [2, 3]], "loss": "every", "passes": "1-2"}
    recipe = small(task={"nodes": 12, "least": 4}, training=stages)
    held, alone = (
        find_baseline(each).setup(recipe, k).recipe.training
        for each, k in ((name, knob), ("wake_loops", 2))
    )
    assert (held.carry_from, alone.carry_from) == (2, 0)
    assert held.carry_over > alone.carry_over == 0.5
    assert held.stages == alone.stages == ((1,), (2,), (3,))


def test_taught_loops_are_wake_loops_with_a_lesson_after_each() -> None:
    stages = {"stages": [[1], [2], [2, 3]], "loss": "every", "passes": "1-2"}
    recipe = small(task={"nodes": 12, "least": 4}, training=stages)
    for knob in (1, 2):
        poorer, taught = (find_baseline(n).setup(recipe, knob).recipe for n in LOOPS)
        assert (taught == poorer) is (knob == 1)
        assert taught.model == poorer.model
    assert (taught.training.loss, taught.training.passes) == ("loops", "1")
    assert taught.training.stages == ((1, 1), (2, 2), (2, 3))
    assert taught.training.patience == poorer.training.patience


def test_wrong_names_and_knobs_are_refused() -> None:
    with pytest.raises(InputError, match=r"baseline='wider': .*did you mean 'wider_state'"):
        find_baseline("wider")
    with pytest.raises(InputError, match=r"deeper: knob=1 .layers.*: 2 to 24"):
        find_baseline("deeper").setup(RECIPE, 1)
    with pytest.raises(InputError, match=r"retrieval: knob=32 .*stored and searched.*: 33 to 768"):
        find_baseline("retrieval").setup(RECIPE, 32)
    with pytest.raises(InputError, match=r"wake_loops: knob=33 .*: 1 to 32"):
        find_baseline("wake_loops").setup(RECIPE, 33)
