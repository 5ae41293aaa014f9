"""What a study searches: policies and their open parameters, the window, the cap on passes.

How a policy is read with some parameters open is in tune_open.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptive_sleep.experiments.comparing import FITS, Comparison, PolicyEntry
from adaptive_sleep.experiments.tune_open import Open, Part, Reader
from adaptive_sleep.spec import format_spec, named, read_call, resolve
from adaptive_sleep.streams.errors import InputError

if TYPE_CHECKING:
    import optuna

OURS = "adaptive_sleep.policies."  # where policies are that plan no more passes than are run
DRAWS = 32  # tries before a policy is said to refuse all that it could be given


@dataclass(frozen=True)
class Candidate:
    """One point of the space: the spec, in which {model} and {NAME} of a fit stand for files of a
    model, and the window in events (None: the model's own)."""

    written: str
    window: int | None

    def spec(self, files: Mapping[str, str]) -> str:
        """The spec for one model, every parameter spelled out. Raises InputError where a policy
        refuses a value."""
        return format_spec(resolve(PolicyEntry("", self.written).written(files)))


@dataclass(frozen=True)
class Space:
    """Policies by label; `caps` on passes and `windows` to choose among; `most` passes are run."""

    policies: Mapping[str, Part]
    caps: tuple[int, ...]
    windows: tuple[int, ...]
    most: int

    def usual(self, number: int, window: int | None = None) -> dict[str, Any]:
        """What the trial of that number takes as given: the first ones try each policy as it is
        when nothing is tuned, at the models' own `window` (None: they differ) where that may be
        tried, so that no study ends with less than that."""
        if number >= len(self.policies):
            return {}
        label = list(self.policies)[number]
        given = {it.name: it.usual for it in self.policies[label].opens() if it.usual is not None}
        if len(self.policies) > 1:
            given["policy"] = label
        if len(self.caps) > 1 and self.most in self.caps:
            given["max_passes"] = self.most
        if len(self.windows) > 1 and window in self.windows:
            given["window"] = window
        return given

    def suggest(self, trial: optuna.Trial) -> Candidate:
        """What a trial is to try."""
        labels = list(self.policies)
        label = trial.suggest_categorical("policy", labels) if len(labels) > 1 else labels[0]
        part = self.policies[label]
        values = {it.name: it.suggest(trial) for it in part.opens()}
        cap = _one_of(trial, "max_passes", self.caps, self.most)
        window = _one_of(trial, "window", self.windows, None)
        return Candidate(self._capped(part, part.written(values), cap), window)

    def _capped(self, part: Part, spec: str, cap: int) -> str:
        if cap >= self.most and all(map(_keeps_below, part.parts())):
            return spec
        inner = repr(spec) if ":" in spec.partition("(")[0] else spec
        return f"capped({inner}, max_passes={cap})"

    def check(self, files: Mapping[str, str]) -> None:
        """Raise InputError, with the reason, for a policy that refuses whatever it is given; those
        that need other files than `files` are left out."""
        random = np.random.default_rng(0)
        for part in self.policies.values():
            opens, refused = part.opens(), None
            if not _places(part) <= {*files}:
                continue
            middle_and_ends = [np.full(len(opens), share) for share in (0.5, 0.0, 1.0)]
            for shares in (*middle_and_ends, *random.random((DRAWS, len(opens)))):
                values = {it.name: it.at(float(at)) for it, at in zip(opens, shares, strict=True)}
                try:
                    Candidate(part.written(values), None).spec(files)
                    break
                except InputError as error:
                    refused = refused or error
            else:
                names = ", ".join(_shown(it) for it in opens)
                what = f"what may be tried ({names}) excludes everything: " if opens else ""
                raise InputError(f"policy {part.head!r}: {what}{refused}") from refused

    def places(self) -> set[str]:
        """Which files of a model the policies need."""
        return set().union(*map(_places, self.policies.values()))

    def described(self) -> dict[str, str]:
        """Every policy with what is open in it, in words that stay the same for the same space."""
        found = {}
        for label, part in self.policies.items():
            opens = [_shown(it) for it in part.opens()]
            text = part.written({it.name: "?" for it in part.opens()})
            found[label] = "; ".join([text, *opens])
        return found | {"caps": str(self.caps), "windows": str(self.windows)}


def _keeps_below(part: Part) -> bool:
    """Whether a policy is one of ours, which plan no more passes than a window may have."""
    return str(getattr(named(part.head), "__module__", "")).startswith(OURS)


def _places(part: Part) -> set[str]:
    text = part.written({it.name: it.at(0.5) for it in part.opens()})
    return {name for name in (*FITS, "model") if f"{{{name}}}" in text}


def _one_of(trial: optuna.Trial, name: str, options: Sequence[int], otherwise: Any) -> Any:
    if len(options) < 2:
        return options[0] if options else otherwise
    if list(options) == list(range(options[0], options[-1] + 1)):
        return trial.suggest_int(name, options[0], options[-1])
    return trial.suggest_categorical(name, list(options))


def _shown(it: Open) -> str:
    if it.options:
        return f"{it.name} one of {', '.join(map(repr, it.options))}"
    kind = " log" if it.log else ""
    return f"{it.name} {it.low:g} to {it.high:g}{kind}" + (f" by {it.step:g}" if it.step else "")


def space_of(recipe: Comparison, policies: Sequence[str] = ()) -> Space:
    """The space of a recipe: of `policies` if given, else of [tune] policies, else of all policies
    that it compares and that could be deployed, with everything open that they declare. Raises
    InputError, also where there is none."""
    fits = FITS if recipe.recording is None or recipe.recording.fit is not None else ()
    places = (*fits, "model")
    given = list(dict.fromkeys(policies or recipe.tune.policies))
    readers = [Reader(spec, places) for spec in given] or [
        Reader(entry.spec, places, reopen=True, grid=entry.grid)
        for entry in recipe.policies
        if entry.online
    ]
    if not readers:
        raise InputError(
            "policies: all that the recipe compares have online = false, which no budget buys; "
            "give one with --policy"
        )
    heads = [read_call(reader.spec)[0].rpartition(":")[2] for reader in readers]
    times = Counter(heads)
    labels = [
        head if times[head] == 1 else reader.spec
        for head, reader in zip(heads, readers, strict=True)
    ]
    # sorted, so that the same policies are the same space in whatever order they are given
    pairs = sorted(zip(labels, readers, strict=True), key=lambda pair: pair[0])
    parts = {label: reader.read(label) for label, reader in pairs}
    caps = recipe.tune.pass_caps or tuple(range(2, recipe.max_passes + 1))
    return Space(parts, tuple(sorted(caps)), tuple(sorted(recipe.tune.windows)), recipe.max_passes)
