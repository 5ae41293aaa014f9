"""What a live run says: the forecast of a stream as plain JSON, at a boundary or after each event.

When there is something to say is live.py's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from adaptive_sleep.forecasting import Forecast
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.streams.events import Piece

Emit = Callable[[dict[str, Any]], None]


class Forecasts:
    """Says what the model expects, at a boundary or after each piece.

    Where `emit` raises, nothing more is said, `stop` is called and `error` holds what it raised: a
    reader that has gone is no reason to lose events.
    """

    def __init__(
        self,
        runtime: Runtime,
        emit: Emit | None,
        horizon: int,
        every: bool,
        stop: Callable[[], None],
    ) -> None:
        self.every = every and emit is not None
        self.error: Exception | None = None
        self._runtime, self._emit, self._horizon, self._stop = runtime, emit, horizon, stop

    def say(
        self, pieces: Sequence[Piece], windows: Mapping[str, int], times: Mapping[str, int]
    ) -> None:
        """Emit a forecast of each stream that is in `windows` (closed), or of all with `every`."""
        if self._emit is None:
            return
        for stream in dict.fromkeys([*windows, *(p.stream for p in pieces if self.every)]):
            forecast = self._runtime.predict(stream, horizon=self._horizon)
            said = {"stream": stream, "time": iso(times[stream]), "boundary": stream in windows}
            if stream in windows:
                said["window"] = windows[stream]
            try:
                self._emit({**said, **plain_forecast(forecast, self._runtime.model)})
            except Exception as error:
                self.error, self._emit = error, None
                self._stop()
                return


def iso(time_ns: int) -> str:
    """A time in ns UTC as ISO 8601.

    >>> iso(1_500_000_000)
    '1970-01-01T00:00:01.500000000Z'
    """
    return f"{np.datetime64(time_ns, 'ns')}Z"


def plain_forecast(forecast: Forecast, model: Model) -> dict[str, Any]:
    """A forecast as JSON holds it; what is not finite becomes null. Of an event log also by name,
    null for a token that stands for nothing."""
    config, names = model.config, dict(enumerate(model.categories))
    if config.kind == "tokens":
        tokens = _plain(forecast.tokens)
        said = {"tokens": tokens, "logprob": _plain(forecast.logprob)}
        return {**said, "categories": [names.get(int(t or 0)) for t in tokens]} if names else said
    mean, quantiles = forecast.mean, forecast.quantiles
    assert mean is not None
    assert quantiles is not None
    return {
        "mean": {name: _plain(mean[:, c]) for c, name in enumerate(config.channels)},
        "quantiles": {
            name: {
                str(level): _plain(quantiles[:, c, q]) for q, level in enumerate(config.quantiles)
            }
            for c, name in enumerate(config.channels)
        },
    }


def _plain(values: Any) -> list[float | int | None]:
    return [v if np.isfinite(v) else None for v in np.asarray(values).tolist()]
