"""The Gymnasium environment: an episode is a run, and its rewards are what the run saved."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from environment_cases import (
    WINDOW,
    Course,
    answering_model,
    asked,
    environment,
    play,
    series,
    series_model,
    view,
)
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from adaptive_sleep.checkpoint import named_tokens, save_model
from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.policies.agent_file import save_view
from adaptive_sleep.policies.environment import ID, Consolidation, register
from adaptive_sleep.signals import WindowSignals
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter
from adaptive_sleep.trace import trace_frame

MODEL = series_model()
BUDGET = 1500.0  # sleep FLOPs per event; a pass is 1144


@pytest.fixture(scope="module")
def answering() -> Model:
    return answering_model()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return series(tmp_path_factory.mktemp("recordings") / "one")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return series(tmp_path_factory.mktemp("recordings") / "several", streams=3, rows=60)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return asked(tmp_path_factory.mktemp("recordings") / "task")


def tour(most: int = 4) -> Any:
    """Passes 1 .. most, over and over."""
    return itertools.cycle(range(1, most + 1))


def same(one: Course, other: Course) -> bool:
    return (
        np.array_equal(one[0], other[0])
        and one[1] == other[1]
        and [(it["stream"], it["window"]) for it in one[2][:-1]]
        == [(it["stream"], it["window"]) for it in other[2][:-1]]
    )


# ---------------------------------------------------------------- what gymnasium asks


@pytest.mark.parametrize(
    "settings",
    [{}, {"summary": True, "max_passes": 2}, {"budget": BUDGET, "price": 1e-6, "shuffle": False}],
)
def test_the_checker_finds_nothing(several: Recording, settings: dict[str, Any]) -> None:
    check_env(environment(several, MODEL, **settings))  # a warning is an error here


def test_the_checker_finds_nothing_where_questions_are_answered(
    task: Recording, answering: Model
) -> None:
    check_env(environment(task, answering))


def test_a_forked_process_is_refused_and_a_fresh_one_is_not() -> None:
    """A fork hung for ever: the recording had been read by threads that it lacks."""
    code = """
import gymnasium, sys
if __name__ == "__main__":
    made = gymnasium.make_vec(
        "adaptive_sleep.policies.environment:adaptive_sleep/Consolidation-v0", num_envs=1,
        vectorization_mode="async", vector_kwargs={"context": sys.argv[1]},
        recording="bundled:chain", model="bundled:chain", gap_seconds=0.5, stop=0.02,
    )
    print(made.reset(seed=0)[0].shape)
    made.close()
"""
    runs = {
        context: subprocess.run(
            [sys.executable, "-c", code, context], capture_output=True, text=True, timeout=120,
            check=False,
        )
        for context in ("fork", "spawn")
    }  # fmt: skip
    assert "InputError: context: this process is a fork" in runs["fork"].stderr
    assert "vector_kwargs={'context': 'spawn'}" in runs["fork"].stderr
    assert runs["fork"].returncode == 1
    assert runs["spawn"].stdout == "(1, 13)\n", runs["spawn"].stderr


def test_it_is_registered_once_and_only_when_asked_for() -> None:
    before = gymnasium.registry[ID]
    register()
    assert gymnasium.registry[ID] is before
    code = "import adaptive_sleep.policies, sys; sys.exit('gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------- an episode is a run


@pytest.mark.parametrize(
    "settings", [{}, {"budget": BUDGET}, {"eviction": "sliding"}, {"window": 5}]
)
def test_an_episode_is_the_replay_of_its_passes(
    one: Recording, settings: dict[str, Any], tmp_path: Path
) -> None:
    """To the bit: also clipped by a budget, and from a slice."""
    run: dict[str, Any] = {"gap_seconds": 60.0, "start": 0.1, "stop": 0.95} | settings
    spec = "surprise(threshold=0.7, passes=3)"
    replay(one, MODEL, spec, tmp_path / "run", max_passes=4, **run)
    trace = open_run(tmp_path / "run").trace().collect()
    assert trace["planned"].n_unique() == 2
    assert {"length", "gap"} <= set(trace["cause"])
    env = environment(one, MODEL, **run)
    play(env, trace["planned"].to_list())
    assert trace_frame(env.rows).equals(trace)


def test_streams_one_after_another_give_what_they_give_together(
    task: Recording, answering: Model, tmp_path: Path
) -> None:
    replay(task, answering, "fixed(3)", tmp_path / "run", gap_seconds=0.5)
    together = open_run(tmp_path / "run").trace().collect().sort("stream", "window")
    env = environment(task, answering)
    course = play(env, itertools.repeat(3))
    alone = trace_frame(env.rows).sort("stream", "window")
    for name in ("stream", "window", "passes", "scored", "asked", "sleep_flops", "tokens"):
        assert alone[name].equals(together[name]), name
    losses = [frame["loss"].drop_nulls().to_numpy() for frame in (alone, together)]
    assert np.allclose(*losses, rtol=1e-5)
    assert len(course[1]) == (together["asked"] == 0).sum()  # one decision for each window read


# ---------------------------------------------------------------- rewards


def test_never_sleeping_is_worth_nothing(
    several: Recording, task: Recording, answering: Model
) -> None:
    for env in (environment(several, MODEL, price=1.0), environment(task, answering)):
        assert set(play(env, itertools.repeat(1))[1]) == {0.0}


def test_an_episode_is_worth_the_loss_saved_less_the_price_of_its_sleep(
    one: Recording, tmp_path: Path
) -> None:
    losses = []
    for spec in ("fixed(1)", "fixed(3)"):
        replay(one, MODEL, spec, tmp_path / spec, gap_seconds=60.0)
        losses.append(open_run(tmp_path / spec).trace().collect())
    env = environment(one, MODEL, price=2e-6)
    _, rewards, infos = play(env, itertools.repeat(3))
    flops = sum(info["sleep_flops"] for info in infos[1:])
    assert flops == losses[1]["sleep_flops"].sum()
    saved = losses[0]["loss"].sum() - losses[1]["loss"].sum()
    assert sum(rewards) == pytest.approx(saved - 2e-6 * flops, abs=1e-9)
    assert sum(info["loss_saved"] for info in infos[1:]) == pytest.approx(saved, abs=1e-9)
    assert {info["passes"] for info in infos[1:]} == {3}


def test_a_reward_is_of_the_windows_since_the_decision(one: Recording) -> None:
    """The window after one that was slept on is the first that can differ."""
    env = environment(one, MODEL)
    passes = [1, 1, 4, *[1] * 30]
    _, rewards, infos = play(env, passes)
    assert rewards[:2] == [0.0, 0.0]
    assert rewards[2] != 0.0
    assert [info["passes"] for info in infos[1:4]] == [1, 1, 4]


# ---------------------------------------------------------------- seeds


def test_the_same_seed_and_actions_give_the_same(several: Recording, task: Recording) -> None:
    for recording, model in ((several, MODEL), (task, answering_model())):
        first, second = (environment(recording, model, summary=True) for _ in range(2))
        courses = [play(first, tour(), seed=5), play(first, tour(), seed=5)]
        courses += [play(second, tour(), seed=5)]
        assert same(courses[0], courses[1])
        assert same(courses[0], courses[2])
        assert same(play(first, tour()), play(second, tour()))  # the next ones, too


def test_a_seed_decides_the_order_of_streams_and_nothing_else(several: Recording) -> None:
    def order(env: Any, seed: int) -> list[str]:
        infos = play(env, tour(), seed=seed)[2]
        return list(dict.fromkeys(info["stream"] for info in infos[:-1]))

    shuffled, straight = environment(several, MODEL), environment(several, MODEL, shuffle=False)
    orders = {tuple(order(shuffled, seed)) for seed in range(6)}
    assert len(orders) > 2
    assert {frozenset(it) for it in orders} == {frozenset(several.streams)}
    assert {tuple(order(straight, seed)) for seed in range(2)} == {several.streams}


# ---------------------------------------------------------------- masks


def test_the_mask_says_what_is_clipped(one: Recording) -> None:
    env = environment(one, MODEL, budget=BUDGET)
    widths = set()
    info = env.reset(seed=0)[1]
    for turn in itertools.count():
        assert info["action_mask"].tolist() == env.action_masks().astype(int).tolist()
        allowed = int(info["action_mask"].sum())
        assert info["action_mask"].tolist() == [1] * allowed + [0] * (4 - allowed)
        widths.add(allowed)
        asked_for = allowed if turn % 3 else 4  # as it is, and beyond the mask
        terminated, info = env.step(asked_for - 1)[2::2]
        assert info["passes"] == allowed
        assert env.rows[-1].clipped_by == ("budget" if asked_for > allowed else "")
        if terminated:
            break
    assert len(widths) > 1


@pytest.mark.parametrize("burst", [1.6, 1.7])
def test_the_mask_is_exact_where_the_balance_is_a_multiple_of_a_pass(burst: float) -> None:
    """The share of it that a policy sees is rounded, and gave one pass too few."""
    settings: dict[str, Any] = {"gap_seconds": 0.5, "stop": 0.02, "shuffle": False}
    first = environment("bundled:chain", "bundled:chain", **settings)
    first.reset()
    assert first._asked is not None
    flops, events = int(first._asked.pass_flops[0]), int(first._asked.tokens[0])
    env = environment(
        "bundled:chain", "bundled:chain", budget=7 * flops / events, burst=burst, max_passes=9,
        **settings,
    )  # fmt: skip
    assert env.reset()[1]["action_mask"].tolist() == [1] * 8 + [0]
    info = env.step(8)[4]
    assert (info["passes"], env.rows[0].clipped_by) == (8, "budget")


def test_without_a_budget_everything_is_allowed(one: Recording) -> None:
    infos = play(environment(one, MODEL, max_passes=3), tour(3))[2]
    assert {tuple(info["action_mask"].tolist()) for info in infos} == {(1, 1, 1)}


# ---------------------------------------------------------------- observations


def test_what_is_seen_is_normal_where_nothing_sleeps(several: Recording) -> None:
    env = environment(several, MODEL, summary=True)
    seen = np.array(play(env, itertools.repeat(1))[0])
    assert seen.dtype == np.float32
    assert seen.shape[1] == len(WindowSignals.SCALARS) + 2 * MODEL.config.width
    assert np.array_equal(seen[-1], np.zeros(seen.shape[1]))  # nothing is asked any more
    spread = seen[:-1].std(axis=0)
    assert np.allclose(seen[:-1].mean(axis=0), 0, atol=1e-4)
    assert (np.isclose(spread, 1, atol=1e-4) | (spread == 0)).all()
    still = {"cache_pressure", "price", "budget_left", "max_passes"}
    for at, name in enumerate(WindowSignals.SCALARS):
        assert (spread[at] == 0) == (name in still), name


def test_another_view_is_seen_by(one: Recording, tmp_path: Path) -> None:
    other = view()
    env = environment(one, MODEL, view=save_view(other, tmp_path / "view.safetensors"))
    assert env.view.same(other)
    assert not np.array_equal(env.reset()[0], environment(one, MODEL).reset()[0])
    own = environment(one, MODEL, summary=True).view
    assert own.model == MODEL.hash
    assert environment(one, MODEL, summary=True, view=own).view is own
    with pytest.raises(InputError, match="view: of the summaries of model"):
        environment(one, series_model(1), summary=True, view=own)


# ---------------------------------------------------------------- side by side


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_side_by_side_they_play_what_they_play_alone(one: Recording, mode: AutoresetMode) -> None:
    settings: dict[str, Any] = {"recording": one, "model": MODEL, "gap_seconds": 60.0}
    vector = gymnasium.make_vec(
        ID, 2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **settings
    )
    assert vector.metadata["autoreset_mode"] == mode
    observations, rewards, infos = play(environment(one, MODEL), tour(), seed=3)
    seen, info = vector.reset(seed=3)
    for at, reward in enumerate(rewards):
        assert np.array_equal(seen, [observations[at]] * 2)
        assert np.array_equal(info["action_mask"], [infos[at]["action_mask"]] * 2)
        seen, got, ended, _, info = vector.step(np.array([at % 4] * 2))
        assert got.tolist() == [reward] * 2
    assert ended.all()
    if mode is AutoresetMode.NEXT_STEP:
        assert np.array_equal(seen, [observations[-1]] * 2)
        seen, got, ended, _, _ = vector.step(np.array([3, 3]))
        assert got.tolist() == [0.0, 0.0]
        assert not ended.any()
    else:
        assert np.array_equal(np.stack(info["final_obs"]), [observations[-1]] * 2)
    assert np.array_equal(seen, [observations[0]] * 2)
    vector.close()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"start": 0.5, "stop": 0.5}, "no row of 100 lies between"),
        ({"max_passes": 0}, "max_passes=0: at least 1"),
        ({"price": -1.0}, "price=-1.0"),
        ({"window": 9}, "window=9: 1 to 8"),
        ({"gap_seconds": 0.0}, "gap_seconds=0.0"),
        ({"view": view(16)}, "view: of 13 signals and a summary of 16"),
        ({"recording": "bundled:telemetri"}, "did you mean 'telemetry'"),
        ({"recording": "bundled:chain"}, "holds tokens, but the model reads series"),
    ],
)
def test_what_cannot_be_is_refused(one: Recording, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        environment(**({"recording": one, "model": MODEL} | settings))


def test_tokens_that_stand_for_something_else_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        kind="tokens", vocabulary=2, width=8, heads=2, fast_heads=1, key_dim=4, value_dim=4,
        window=WINDOW,
    )  # fmt: skip
    file = save_model(
        Model(config), tmp_path / "m.safetensors", provenance=named_tokens(["open", "close"])
    )

    def logged(name: str, *categories: str) -> Path:
        with RecordingWriter(
            tmp_path / name, kind="tokens", tokenizer="categories", vocabulary=2,
            categories=categories,
        ) as writer:  # fmt: skip
            writer.append("s", range(20), tokens=[0, 1] * 10)
        return tmp_path / name

    assert Consolidation(logged("same", "open", "close"), file).reset()
    with pytest.raises(InputError, match="recording: token 0 is 'close', but 'open' to the model"):
        Consolidation(logged("other", "close", "open"), file)


def test_rows_without_a_decision_are_refused(task: Recording, answering: Model) -> None:
    with pytest.raises(InputError, match="nothing to choose"):
        environment(task, answering, start=28, stop=48)  # questions of the first samples


@pytest.mark.parametrize("action", [-1, 4, 1.0, "1"])
def test_an_action_that_is_none_is_refused_and_changes_nothing(one: Recording, action: Any) -> None:
    env = environment(one, MODEL)
    env.reset(seed=0)
    with pytest.raises(InputError, match="whole number from 0 to 3"):
        env.step(action)
    assert env.rows == []
    env.step(0)
    assert len(env.rows) == 1


def test_a_step_outside_an_episode_is_refused(one: Recording) -> None:
    env = environment(one, MODEL)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    play(env, tour())
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    with pytest.raises(InputError, match="has none"):
        env.reset(options={"stream": "s0"})
