"""Actions that work late: does the state keep what was done until it shows, windows later?

Made streams. Once a cycle every valve is turned up, down or not at all, at a moment of its own in
the cycle's first window; its level answers a number of windows later, long after that window was
evicted, and nothing else tells which way. A clock, observed, says when. Asked is the level as an
answer begins, forecast before any of it is seen, from the fast weights.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.experiments.jobs import one_thread, side_by_side
from adaptive_sleep.experiments.probes.summing import kept_or_done
from adaptive_sleep.experiments.reproduce import Report, averaged, commit
from adaptive_sleep.horizon import forecast_ahead
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Channel, Events, Piece
from adaptive_sleep.streams.writer import RecordingWriter
from adaptive_sleep.training import Trained, train
from adaptive_sleep.training_recipe import DataRecipe, Recipe, TrainingRecipe

NAME = "action"
KINDS = ("model", "control")
PASSES = (1, 2, 3, 4)
SECOND = 1_000_000_000  # ns
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Valves:
    """The streams: a cycle has `windows` windows of `window` events; there is one valve and one
    level for each of `delays`, in windows."""

    window: int = 16
    windows: int = 5
    delays: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    noise: float = 0.2  # standard deviation of a level, whose answer is -1, 0 or 1

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The clock and the levels, observed, then the valves, which are actions."""
        levels = tuple(f"level{n}" for n in range(len(self.delays)))
        valves = tuple(f"valve{n}" for n in range(len(self.delays)))
        return (
            Channel("clock"),
            *(Channel(name) for name in levels),
            *(Channel(name, role="action") for name in valves),
        )

    def draw(self, random: np.random.Generator, cycles: int) -> tuple[FloatArray, FloatArray]:
        """One stream's values `[cycles * windows * window, 1 + 2 valves]`, and what every valve was
        turned to, `[cycles, valves]`."""
        count, length = len(self.delays), self.windows * self.window
        turned = random.choice([-1.0, 0.0, 1.0], size=(cycles, count), p=[0.35, 0.3, 0.35])
        moment = random.integers(self.window, size=(cycles, count))
        clock = np.tile(np.arange(length) / length, cycles)
        levels = random.normal(0.0, self.noise, (cycles, length, count))
        valves = np.zeros((cycles, length, count))
        for valve, delay in enumerate(self.delays):
            answer = slice(delay * self.window, (delay + 1) * self.window)
            levels[:, answer, valve] += turned[:, valve, None]
            valves[np.arange(cycles), moment[:, valve], valve] = turned[:, valve]
        values = np.concatenate([levels, valves], axis=2).reshape(cycles * length, 2 * count)
        both = np.concatenate([clock[:, None], values], axis=1)
        return both.astype(np.float32), turned.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is made, trained and tested."""

    valves: Valves = Valves()
    steps: int = 500
    patch: int = 4
    streams: int = 32  # recorded, the last quarter for validation
    cycles: int = 24  # of each
    test_streams: int = 64
    test_cycles: int = 6  # of each; the first is not scored


def check(settings: Settings) -> None:
    """Raise InputError, naming the field, for what cannot be made or asked."""
    valves = settings.valves
    for name, value, least, most in (
        ("patch", settings.patch, 2, valves.window),
        ("test_cycles", settings.test_cycles, 2, 1 << 16),
        ("delays", min(valves.delays, default=0), 1, valves.windows - 1),
        ("delays", max(valves.delays, default=0), 1, valves.windows - 1),
    ):
        if not least <= value <= most:
            raise InputError(f"{name}={value}: expected {least} to {most}")


def run(
    out: Path,
    *,
    seeds: Sequence[int],
    quick: bool = False,
    jobs: int | None = None,
    on_progress: Report | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Train and test, for each seed, a model of 1 to 4 passes and a control at N = 1 in as many
    steps. Returns R2 by N and delay, with intervals over seeds; the same of the `control`, and of
    the model where the valves are `hidden` from it; and `ceiling`, what whoever knows them could
    reach. `quick`: the first seed, of fewer steps. Raises InputError."""
    chosen = settings or Settings()
    check(chosen)
    if quick:
        chosen, seeds = replace(chosen, steps=min(chosen.steps, 150)), list(seeds)[:1]
    begun = time.perf_counter()
    work = {(k, s): (chosen, k, s, str(out / f"seed-{s}" / k)) for s in seeds for k in KINDS}
    found: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in KINDS}
    for count, ((kind, seed), done) in enumerate(side_by_side(_job, work, jobs), 1):
        found[kind][seed] = done
        if on_progress is not None:
            on_progress(count, len(work), f"{kind}, seed {seed}")
    model = found["model"]
    result: dict[str, Any] = {
        "probe": NAME,
        **averaged({seed: done["r2"] for seed, done in model.items()}),
        "control": averaged({seed: done["r2"] for seed, done in found["control"].items()}),
        "hidden": averaged({seed: done["hidden"] for seed, done in model.items()}),
        "ceiling": float(np.mean([done["ceiling"] for done in model.values()])),
        "seeds": sorted(model),
        "seconds": float(np.mean([done["seconds"] for done in model.values()])),
        "wall_seconds": time.perf_counter() - begun,
        "settings": json.loads(json.dumps(asdict(chosen))),
        "commit": commit(),
    }
    return result


def _job(settings: Settings, kind: str, seed: int, folder: str) -> dict[str, Any]:
    """Train and test one model on one thread, or take up what is there of the same settings."""
    told = {"settings": json.loads(json.dumps(asdict(settings))), "kind": kind, "seed": seed}
    where = Path(folder)

    def do() -> dict[str, Any]:
        with one_thread():
            trained = _trained(settings, kind, seed, where)
            found = tested(load_model(trained.path), settings, seed)
        return {**found, "seconds": trained.seconds}

    return _numbered(kept_or_done(where / "result.json", told, do))


def _trained(settings: Settings, kind: str, seed: int, folder: Path) -> Trained:
    folder.mkdir(parents=True, exist_ok=True)
    recorded, length = _record(settings, seed, folder / "streams"), settings.valves.windows + 1
    training = TrainingRecipe(
        steps=settings.steps,
        windows=length,
        bptt=length,
        passes="1" if kind == "control" else "1-4",
        seed=seed,
    )
    recipe = Recipe(
        model={"patch": settings.patch, "window": settings.valves.window},
        data=DataRecipe(recording=str(recorded), train=(0.0, 0.75), validation=(0.75, 1.0)),
        training=training,
    )
    return train(recipe, folder / "model.safetensors")


def _numbered(result: dict[str, Any]) -> dict[str, Any]:
    """A result whose keys are numbers again."""
    found = {
        name: {int(n): {int(d): v for d, v in row.items()} for n, row in result[name].items()}
        for name in ("r2", "hidden")
    }
    return {**result, **found}


def _record(settings: Settings, seed: int, where: Path) -> Path:
    """A recording of drawn streams, one after the other."""
    if where.exists():  # of a run that was killed; it is drawn in a moment
        shutil.rmtree(where)
    valves, random = settings.valves, np.random.default_rng([seed, 0])
    with RecordingWriter(where, kind="series", channels=valves.channels) as writer:
        for stream in range(settings.streams):
            values, _ = valves.draw(random, settings.cycles)
            writer.append(f"stream{stream}", np.arange(len(values)) * SECOND, values=values)
    return where


def tested(model: Model, settings: Settings, seed: int) -> dict[str, Any]:
    """`r2` of the first patch of an answer, by passes and delay, on streams that training never
    drew; the same at N = 1 where the valves are `hidden` from the model; and the `ceiling`, R2 of
    whoever knows what was turned. R2 = 1 - SSE / SST about zero, the mean of all."""
    valves, random = settings.valves, np.random.default_rng([seed, 1])
    values = np.stack(
        [valves.draw(random, settings.test_cycles)[0] for _ in range(settings.test_streams)]
    )
    blind = values.copy()
    blind[:, :, 1 + len(valves.delays) :] = 0.0
    truth = _answers(settings, values)
    known = np.square(truth - truth.mean(axis=2, keepdims=True)).sum()
    known *= settings.patch / (settings.patch - 1)  # the mean was taken from the same values
    return {
        "r2": {n: _r2(valves, _forecasts(model, settings, values, n), truth) for n in PASSES},
        "hidden": {1: _r2(valves, _forecasts(model, settings, blind, 1), truth)},
        "ceiling": 1.0 - float(known / np.square(truth).sum()),
    }


def _r2(valves: Valves, forecast: NDArray[Any], truth: NDArray[Any]) -> dict[int, float]:
    """By delay; both are `[cycles, streams, patch, valves]`."""
    found = {}
    for delay in sorted(set(valves.delays)):
        mine = np.array(valves.delays) == delay
        left = np.square(truth[..., mine] - forecast[..., mine]).sum()
        found[delay] = 1.0 - float(left / np.square(truth[..., mine]).sum())
    return found


def _answers(settings: Settings, values: NDArray[Any]) -> NDArray[Any]:
    """The levels in the first patch of every answer, `[cycles, streams, patch, valves]`, without
    the first cycle; `values` are `[streams, events, channels]`."""
    valves = settings.valves
    cut = values.reshape(len(values), -1, valves.windows, valves.window, values.shape[2])
    first = [cut[:, 1:, d, : settings.patch, 1 + n] for n, d in enumerate(valves.delays)]
    return np.stack(first, axis=-1).transpose(1, 0, 2, 3)


def _forecasts(model: Model, settings: Settings, values: FloatArray, passes: int) -> NDArray[Any]:
    """What is forecast of these patches at the end of the window before, under fixed(passes)."""
    valves = settings.valves
    runtime = Runtime(model, f"fixed(passes={passes})")
    names = [f"stream{n}" for n in range(len(values))]
    count = values.shape[1] // valves.window
    found = np.zeros(
        (count // valves.windows, len(names), settings.patch, len(valves.delays)), np.float64
    )
    for number in range(count):
        rows = slice(number * valves.window, (number + 1) * valves.window)
        times = np.arange(rows.start, rows.stop) * SECOND
        runtime.step(
            [
                Piece(name, Events(times, values=values[at, rows]), closes=True)
                for at, name in enumerate(names)
            ]
        )
        cycle, phase = divmod(number + 1, valves.windows)
        due = [n for n, delay in enumerate(valves.delays) if delay == phase]
        if due:
            ahead = forecast_ahead(runtime, names).mean
            found[cycle][:, :, due] = ahead[:, : settings.patch, [1 + n for n in due]]
    return found[1:]


def table_of(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """R2 by delay (rows) and N; then the control, and the model with its valves hidden."""
    parts = {f"N={n}": (found["accuracy"][n], found["interval"][n]) for n in found["accuracy"]}
    for kind, words in (("control", "trained at N=1"), ("hidden", "valves hidden")):
        first = next(iter(found[kind]["accuracy"]))
        parts[words] = found[kind]["accuracy"][first], found[kind]["interval"][first]
    rows = []
    for delay in next(iter(found["accuracy"].values())):
        cells = []
        for values, ends in parts.values():
            half = f" ±{ends[delay][1] - values[delay]:.3f}" if ends[delay] else ""
            cells.append(f"{values[delay]:.3f}{half}")
        rows.append([str(delay), *cells])
    return ["delay, windows", *parts], rows


def said(found: Mapping[str, Any]) -> str:
    """What must be known beside the table."""
    return (
        f"R2 of the first patch of an answer; who knows the valves reaches {found['ceiling']:.3f}. "
        f"{len(found['seeds'])} seed(s), {found['seconds']:.0f} s a seed, commit {found['commit']}"
    )
