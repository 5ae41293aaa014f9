"""Comparing policies: one job for each trained seed, side by side, and what all of them found.

A killed comparison goes on where it was. The recipe is in comparing.py, what a seed runs in
compare_seed.py, the statistics in compare_rows.py, the command in commands_compare.py.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from adaptive_sleep.bundled import locate
from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.experiments.compare_models import models_of, trained
from adaptive_sleep.experiments.compare_rows import make_rows, read_rows
from adaptive_sleep.experiments.compare_seed import Found, run_seed
from adaptive_sleep.experiments.comparing import Comparison, read_comparison
from adaptive_sleep.experiments.finding import find_recipe, shipped_recipes
from adaptive_sleep.experiments.jobs import one_thread, side_by_side
from adaptive_sleep.experiments.matched_reading import beside_policy, plain_name, read_matched
from adaptive_sleep.experiments.matched_table import BY_COST, COMPUTE
from adaptive_sleep.experiments.reproduce import Report, commit, interval
from adaptive_sleep.experiments.runs import versions
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.manifest import write_atomically
from adaptive_sleep.streams.recording import Recording

CLAIM = "comparison.json"


@dataclass(frozen=True)
class Job:
    """One seed: its number, the folder it lies in, and its model: a file, or (None) the training
    recipe of the comparison."""

    recipe: Comparison
    folder: Path
    seed: int
    model: str | None
    quick: bool


@dataclass(frozen=True)
class Done:
    """What a job found, with the model that it was found with."""

    found: Found
    model: str
    model_hash: str
    seconds: float


def compare(
    recipe: str | Path,
    out: str | Path,
    *,
    quick: bool = False,
    jobs: int | None = None,
    on_progress: Report | None = None,
) -> dict[str, Any]:
    """Run a comparison in the folder `out`, in `jobs` processes of one thread (default: one per
    core); write NAME.json and its page, NAME.html, there, and return what is in the first.

    `quick`: one seed, on the recipe's quick model, fewer samples, one control, no changes. Models
    of a training recipe are trained where they are not yet, in `out`/seed-S/model, as `reproduce`
    does, and baselines in `out`/seed-S/baselines/*/model: copies of these in another folder are
    taken up by another recipe (more targets, say) of the same models. Raises InputError for a wrong
    recipe, and for a folder that holds something else.
    """
    from adaptive_sleep.experiments.report_comparison import write_comparison  # which reads this

    file, begun = find_recipe(recipe), time.perf_counter()
    plan, folder = read_comparison(file), folder_of(out)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    models = models_of(plan, quick)
    since = claim(folder, {"recipe_sha256": sha256, "quick": quick}, plan.models.recipe)
    work = [Job(plan, folder, seed, model, quick) for seed, model in models.items()]
    done: dict[int, Done] = {}

    def tell(note: str) -> None:
        if on_progress is not None:
            on_progress(len(done), len(work), note)

    here = partial(_do, tell=tell)
    for seed, one in side_by_side(_do, {job.seed: (job,) for job in work}, jobs, here=here):
        done[seed] = one
        tell(f"seed {seed}")
    result = {
        "comparison": file.stem,
        **summary(plan, done),
        "recipe_sha256": sha256,
        "commit": commit(),
        "begun_at_commit": since,
        "quick": quick,
        "wall_seconds": time.perf_counter() - begun,
    }
    write_atomically(folder / f"{file.stem}.json", (json.dumps(result, indent=1) + "\n").encode())
    write_comparison(folder / f"{file.stem}.json", folder / f"{file.stem}.html")
    return result


def folder_of(out: str | Path) -> Path:
    """The folder, spelled as when it was begun where that leads to it from here, since specs name
    files in it. Raises InputError for a file."""
    folder = Path(out).resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out={str(out)!r}: is a file; give a folder, new or of this recipe")
    claimed = folder / CLAIM
    held = json.loads(claimed.read_text(encoding="utf-8")) if claimed.is_file() else {}
    begun = Path(held.get("folder", out))
    return begun if begun.resolve() == folder else Path(out)


def from_results(recipe: str | Path) -> dict[str, Any]:
    """What the last full comparison of this name wrote. Raises InputError where there is none."""
    name = find_recipe(recipe).stem
    file = resources.files("adaptive_sleep.experiments") / "results" / f"{name}.json"
    if not file.is_file() or not _is_ours(recipe, name):
        raise InputError(f"compare {recipe} --from-results: no full run has been kept yet")
    held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if "comparison" not in held:
        other = "choices" if "rows" in held else "reproduce"
        raise InputError(
            f"compare {name} --from-results: holds no comparison; `adaptive-sleep {other} {name} "
            "--from-results` shows it"
        )
    return {**held, "rows": beside_policy(held["rows"])}


def _is_ours(recipe: str | Path, name: str) -> bool:
    """Whether a recipe is the one that is shipped under its name, whatever its path; true where
    none is."""
    if name not in shipped_recipes():
        return True
    return find_recipe(recipe).read_bytes() == find_recipe(name).read_bytes()


def summary(plan: Comparison, done: Mapping[int, Done]) -> dict[str, Any]:
    """Rows with intervals (`left_out`: what has none, and why), the same by change, correlations
    of signals with the oracle's passes, and where all of it comes from; with stable keys."""
    most, seeds = plan.max_passes, sorted(done)
    found = {seed: done[seed].found for seed in seeds}
    rows = beside_policy(make_rows({seed: one.rows for seed, one in found.items()}, most))
    left = _left_out(found, rows)
    changes = {
        name: make_rows({seed: one.changes[name] for seed, one in found.items()}, most)
        for name in found[seeds[0]].changes
    }
    return {
        "rows": rows,
        "changes": changes,
        "signals": _correlated([one.signals for one in found.values()]),
        "reading": [
            *read_rows(rows, most, plan.within),
            *read_matched(rows),
            *(f"No row {name}: {reason}." for name, reason in left.items()),
        ],
        "left_out": left,
        "seeds": seeds,
        "max_passes": most,
        "asked": all(one.asked for one in found.values()),
        "windows": {str(seed): one.windows for seed, one in found.items()},
        "recording_sha256": _recording_hash(plan),
        "models": {str(seed): done[seed].model for seed in seeds},
        "model_hashes": {str(seed): done[seed].model_hash for seed in seeds},
        "seconds": {str(seed): done[seed].seconds for seed in seeds},
        "versions": versions(),
        "recipe": msgspec.to_builtins(plan),
    }


def _recording_hash(plan: Comparison) -> str | None:
    """The hash of the recording that is compared on; None for a task, whose streams are made."""
    if plan.recording is None:
        return None
    return Recording.open(locate("recordings", plan.recording.path)).sha256


def _left_out(found: Mapping[int, Found], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Rows that a seed lacks, since a mean over some says nothing: which seeds, and why."""
    named, left = {row["name"] for row in rows}, dict[str, str]()
    for name in dict.fromkeys(
        name for one in found.values() for name in (*one.rows, *one.unmatched)
    ):
        if name in named:
            continue
        lacking = {s: one.unmatched for s, one in found.items() if name not in one.rows}
        plain = plain_name(name).replace(COMPUTE, "").replace(BY_COST, "")
        why = {seed: known.get(plain, "") for seed, known in lacking.items()}
        told = [f"seed {seed}: {reason}" for seed, reason in why.items() if reason]
        if len(set(why.values())) == 1 and len(lacking) == len(found):
            told = [*why.values()][:1]
        other = [str(seed) for seed, reason in why.items() if not reason]
        if other:
            told.append(f"seed {', '.join(other)}: matched by other knobs")
        left[name] = "; ".join(told)
    return left


def _correlated(by_seed: list[dict[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Mean rank correlation of each signal over seeds, and its interval; None where a seed has
    none, since the signal never changed."""
    found = {}
    for name in by_seed[0]:
        values = [one[name] for one in by_seed]
        known = [value for value in values if value is not None]
        whole = len(known) == len(values)
        found[name] = {
            "correlation": sum(known) / len(known) if whole else None,
            "interval": interval(known) if whole else None,
        }
    return found


def claim(folder: Path, what: Mapping[str, Any], models: str = "") -> str:
    """Make the folder, or see that it is that of this very comparison, or one in which
    `reproduce` trained the recipe `models`; the commit it was begun at. Raises InputError."""
    file = folder / CLAIM
    if file.is_file():
        held = json.loads(file.read_text(encoding="utf-8"))
        for name, value in what.items():
            if held.get(name) != value:
                raise InputError(
                    f"out={str(folder)!r}: was begun with another {name}; choose another folder "
                    "(what is copied there of seed-*/model and seed-*/baselines/*/model is not "
                    "trained again)"
                )
        return str(held["commit"])
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    strange = names - {f"{Path(models).stem}{ending}" for ending in (".json", ".html")}
    if folder.exists() and any(not name.startswith("seed-") for name in strange):
        raise InputError(f"out={str(folder)!r}: holds something else; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={str(folder)!r}: cannot be made: {error.strerror}") from None
    claimed = {**what, "commit": commit(), "folder": str(folder)}
    write_atomically(file, (json.dumps(claimed, indent=1) + "\n").encode())
    return str(claimed["commit"])


def _do(job: Job, tell: Callable[[str], None] = lambda note: None) -> Done:
    """One job, on one thread: train, or take up, the model, and compare on it."""
    begun, folder = time.perf_counter(), job.folder / f"seed-{job.seed}"
    with one_thread():
        model = job.model
        if model is None:
            tell(f"seed {job.seed}: training")
            model = trained(job.recipe.models, folder / "model", job.seed)
        found = run_seed(job.recipe, model, folder, job.seed, quick=job.quick, tell=tell)
        return Done(found, model, load_model(model).hash, time.perf_counter() - begun)
