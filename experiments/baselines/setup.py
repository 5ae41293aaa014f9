"""What a baseline is: a recipe changed by one integer, and how the model of it is run.

A recipe is of a task or of a recording. Nothing is trained, run or measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from adaptive_sleep.config import Eviction, ModelConfig
from adaptive_sleep.curriculum import in_one_pass, without_stages
from adaptive_sleep.learning import TaskRecipe, config_of
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.training_recipe import Recipe, opened, parse_passes

AnyRecipe = TaskRecipe | Recipe
AWAKE = "fixed(passes=1)"
LONGEST = 128  # windows that attention may hold


@dataclass(frozen=True)
class Setup:
    """A model to be trained, by its recipe (which also says what a boundary drops), and the spec of
    the policy that it is run under."""

    recipe: AnyRecipe
    policy: str = AWAKE

    @property
    def config(self) -> ModelConfig:
        """The shape of the model."""
        return shape_of(self.recipe)

    @property
    def eviction(self) -> Eviction:
        """What a boundary drops; of a recording's recipe always all."""
        return self.recipe.eviction if isinstance(self.recipe, TaskRecipe) else "hard"

    @property
    def keep(self) -> int | None:
        """Events that outlive a boundary, where the recipe says."""
        return self.recipe.keep if isinstance(self.recipe, TaskRecipe) else None


def shape_of(recipe: AnyRecipe) -> ModelConfig:
    """The shape of a recipe's model. Raises InputError."""
    return config_of(recipe) if isinstance(recipe, TaskRecipe) else opened(recipe)[1]


def passes_of(recipe: AnyRecipe) -> int:
    """The most passes that a recipe trains: more may harm, and no baseline is to lose by that."""
    return parse_passes(recipe.training.passes)[1]


@dataclass(frozen=True)
class Baseline:
    """One use of compute. `knob` says what its integer counts; from `least` (of a model's shape) to
    `most` (of that and of the most passes that are trained) it costs more and more; `change` makes
    the setup of a recipe and a knob. `of_tasks`: it is trained, or makes a difference, on tasks
    alone."""

    name: str
    knob: str
    least: Callable[[ModelConfig], int]
    most: Callable[[ModelConfig, int], int]
    change: Callable[[AnyRecipe, int], Setup]
    of_tasks: bool = False

    def bounds(self, recipe: AnyRecipe) -> tuple[int, int]:
        """The least and the most that the knob takes."""
        config = shape_of(recipe)
        return self.least(config), self.most(config, passes_of(recipe))

    def setup(self, recipe: AnyRecipe, knob: int) -> Setup:
        """The baseline with this knob. Raises InputError for one that is out of bounds."""
        least, most = self.bounds(recipe)
        if not least <= knob <= most:
            raise InputError(
                f"{self.name}: knob={knob} ({self.knob}): {least} to {most} for this recipe"
            )
        return self.change(recipe, knob)


def plain(recipe: AnyRecipe) -> Setup:
    """The plain hybrid of a recipe: one pass over each window, in training too. Where the recipe
    teaches in stages, it is taught in the same ones, for as many steps."""
    if isinstance(recipe, Recipe):
        return Setup(replace(recipe, training=replace(recipe.training, passes="1")))
    once = in_one_pass if recipe.training.stages else without_stages
    return Setup(replace(recipe, training=once(recipe.training)))


def reshaped(recipe: AnyRecipe, changes: Mapping[str, Any]) -> Setup:
    """The plain hybrid with other fields of its model."""
    awake = plain(recipe).recipe
    return Setup(replace(awake, model={**awake.model, **changes}))


def holding_more(recipe: AnyRecipe, eviction: Eviction, keep: int) -> Setup:
    """The plain hybrid with attention that keeps `keep` events over boundaries.

    Places that count from the start of a window mean nothing to what was kept from others, so they
    become rotary. Where training goes on on streams, it goes on for as many windows as are kept, so
    that attention is full as often as when it is run; taught in stages, in the last of them, once
    one window was learned alone. For recipes of tasks alone.
    """
    awake = plain(recipe).recipe
    assert isinstance(awake, TaskRecipe)
    config = config_of(awake)
    positions = "rotary" if config.positions in ("learned", "relative") else config.positions
    training = awake.training
    if training.carry_over:
        going_on = max(training.carry_over, 1.0 - config.window / (config.window + keep))
        last = max(len(training.stages) - 1, 0)
        training = replace(training, carry_over=going_on, carry_from=last)
    return Setup(
        replace(
            awake,
            model={
                **awake.model,
                "positions": positions,
                "sleep_attention": config.sleep_attention,  # its default goes by what is evicted
            },
            eviction=eviction,
            keep=keep,
            training=training,
        )
    )
