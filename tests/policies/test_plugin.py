"""A policy of somebody else's, installed as anybody would: listed, checked, replayed, tuned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environment_cases import series, series_model

from adaptive_sleep.checkpoint import save_model

DISTRIBUTION = Path(__file__).parents[1] / "plugin"
Command = Callable[..., str]


def _run(command: list[str | Path], folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Code in a fresh environment, into which the distribution was installed, as its stdout.

    The environment sees the packages of this one, so that nothing is downloaded; the distribution
    alone is its own.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "venv", with_pip=False)
    interpreter = folder / "venv" / "bin" / "python"
    libraries = {key: sysconfig.get_path(key) for key in ("purelib", "platlib")}
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(_run([interpreter, "-c", asked], folder).strip())
    lines = [
        f"import site; site.addsitedir({path!r})" for path in dict.fromkeys(libraries.values())
    ]
    (own / "packages_of_the_tests.pth").write_text("\n".join(lines) + "\n")
    # a copy, so that what is built in passing does not lie about in the checkout
    shutil.copytree(DISTRIBUTION, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    install: list[str | Path] = [sys.executable, "-m", "pip", "--python", interpreter, "install"]
    install += ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "./source"]
    _run(install, folder)
    shutil.rmtree(folder / "source")
    assert (own / "sleep_at_dusk.py").is_file()

    def run(code: str, *arguments: str | Path) -> str:
        return _run([interpreter, "-P", "-c", code, *arguments], folder)

    return run


COMMAND = (
    "import sys; from adaptive_sleep.experiments.cli import main; sys.exit(main(sys.argv[1:]))"
)


def test_it_is_listed_with_its_ranges(python: Command) -> None:
    listed = json.loads(python(COMMAND, "policies", "--json"))["policies"]
    found: dict[str, Any] = next(entry for entry in listed if entry["name"] == "at_dusk")
    assert found["summary"].startswith("Sleep on the windows whose events are fewer")
    assert [it["name"] for it in found["parameters"]] == ["share", "passes"]
    tuned = {it["name"]: it["tune"] for it in found["parameters"]}
    assert (tuned["share"]["low"], tuned["share"]["high"], tuned["share"]["log"]) == (
        0.5,
        2.0,
        True,
    )
    assert (tuned["passes"]["low"], tuned["passes"]["high"]) == (2, 4)


def test_it_is_not_known_outside_its_environment() -> None:
    code = "from adaptive_sleep.catalogue import lookup; lookup('at_dusk')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert b"there is no policy 'at_dusk'" in done.stderr


def test_it_passes_the_conformance_kit_by_its_name(python: Command) -> None:
    python("import adaptive_sleep as asl; asl.testing.check_policy('at_dusk(share=1.5)')")


def test_it_replays_and_can_be_wrapped(python: Command, tmp_path: Path) -> None:
    series(tmp_path / "recording", rows=80)
    model = save_model(series_model(), tmp_path / "m.safetensors", provenance={})
    spec = "capped(at_dusk(share=1.25, passes=4), max_passes=2)"
    given = ["replay", tmp_path / "recording", "--model", model, "--policy", spec]
    told = json.loads(python(COMMAND, *given, "--out", tmp_path / "run", "--json"))
    assert 1.0 < told["mean_passes"] < 2.0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["policy"] == spec


def test_a_tuner_needs_nothing_but_its_name(python: Command) -> None:
    """Values are suggested within the declared ranges, and the spec that they make is read."""
    origin, *tried = python(
        "import optuna, adaptive_sleep as asl\n"
        "from adaptive_sleep.catalogue import installed\n"
        "optuna.logging.set_verbosity(optuna.logging.WARNING)\n"
        "info = next(it for it in installed() if it.name == 'at_dusk')\n"
        "print(info.origin)\n"
        "study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))\n"
        "for _ in range(3):\n"
        "    trial = study.ask()\n"
        "    kinds = {'float': trial.suggest_float, 'int': trial.suggest_int}\n"
        "    values = {it.name: kinds[it.type](\n"
        "        it.name, it.tune.low, it.tune.high, log=it.tune.log) for it in info.parameters}\n"
        "    written = ', '.join(f'{name}={value!r}' for name, value in values.items())\n"
        "    print(asl.resolve(f'at_dusk({written})'))\n"
    ).splitlines()
    assert origin == "distribution sleep-at-dusk"
    assert len(set(tried)) == 3
    assert all(line.startswith("at_dusk(share=") for line in tried)
