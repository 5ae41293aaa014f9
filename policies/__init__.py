"""The policies we ship; importing this package registers them under their names.

One idea a file. None of them sees a model or torch: signals in, passes out. The Gymnasium
environment, which does, is `environment`; only who asks for it imports it.
"""

from adaptive_sleep.policies.agent import Agent
from adaptive_sleep.policies.at_random import Random
from adaptive_sleep.policies.bandit import Bandit
from adaptive_sleep.policies.budgeted import Budgeted
from adaptive_sleep.policies.cache_pressure import CachePressure
from adaptive_sleep.policies.compose import Both, Capped, Either
from adaptive_sleep.policies.cooldown import Cooldown
from adaptive_sleep.policies.drift import Drift
from adaptive_sleep.policies.event_density import EventDensity
from adaptive_sleep.policies.fixed import Fixed
from adaptive_sleep.policies.linear import Linear
from adaptive_sleep.policies.per_stream import PerStream
from adaptive_sleep.policies.periodic import Periodic
from adaptive_sleep.policies.predicted_gain import PredictedGain
from adaptive_sleep.policies.state_change import StateChange
from adaptive_sleep.policies.surprise import Surprise
from adaptive_sleep.policies.uncertainty import Uncertainty
from adaptive_sleep.policies.warmup import Warmup

__all__ = [
    "Agent",
    "Bandit",
    "Both",
    "Budgeted",
    "CachePressure",
    "Capped",
    "Cooldown",
    "Drift",
    "Either",
    "EventDensity",
    "Fixed",
    "Linear",
    "PerStream",
    "Periodic",
    "PredictedGain",
    "Random",
    "StateChange",
    "Surprise",
    "Uncertainty",
    "Warmup",
]
