"""The policies we ship; importing this package registers them under their names.

One idea a file. None of them sees a model or torch: signals in, passes out.
"""

from adaptive_sleep.policies.budgeted import Budgeted
from adaptive_sleep.policies.cache_pressure import CachePressure
from adaptive_sleep.policies.compose import Both, Capped, Either
from adaptive_sleep.policies.event_density import EventDensity
from adaptive_sleep.policies.fixed import Fixed
from adaptive_sleep.policies.state_change import StateChange
from adaptive_sleep.policies.surprise import Surprise
from adaptive_sleep.policies.uncertainty import Uncertainty

__all__ = [
    "Both",
    "Budgeted",
    "CachePressure",
    "Capped",
    "Either",
    "EventDensity",
    "Fixed",
    "StateChange",
    "Surprise",
    "Uncertainty",
]
