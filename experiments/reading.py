"""What the figures of the demo say, in plain sentences that follow from the figures alone.

No result is dressed up: where sleeping longer does not help, the sentence says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NEGLIGIBLE = 0.001  # a relative difference of the loss below this is called none


@dataclass(frozen=True)
class Row:
    """One policy's figures, or those of its shuffled controls taken together."""

    name: str
    policy: str
    control_of: str  # the name of the policy whose passes are shuffled, or ""
    runs: tuple[str, ...]  # the runs behind the row
    losses: tuple[float, ...]  # one for each run
    constant: bool  # every window had the same number of passes
    mean_passes: float
    flops_per_event: float
    sleep_flops_per_event: float
    seconds: float
    right: float | None = None  # of the windows of questions, the share with all right

    @property
    def loss(self) -> float:
        """Mean over the runs of this row."""
        return sum(self.losses) / len(self.losses)

    def relative_to(self, other: Row) -> float:
        """Difference of the loss to another row's, as a share of that."""
        return (self.loss - other.loss) / abs(other.loss) if other.loss else 0.0


def read_rows(rows: Sequence[Row]) -> list[str]:
    """Say whether sleeping longer helps, and whether each policy knows when to sleep.

    The first row is the reference.
    """
    first = rows[0]
    shown = [row for row in rows if not row.control_of]
    fixed = [row for row in shown if row.constant]
    said = []
    for index, row in enumerate(fixed):
        alike = [other for other in fixed[:index] if other.mean_passes == row.mean_passes]
        if alike:
            said.append(
                f"{row.policy} made {row.mean_passes:.0f} pass(es) at every window, so here it is "
                f"the same as {alike[0].policy}."
            )
        elif row.mean_passes > first.mean_passes:
            said.append(_longer(first, row))
    controls = {row.control_of: row for row in rows if row.control_of}
    for row in shown:
        if row is not first and row.name in controls:
            said.append(_adaptive(row, controls[row.name], first, fixed))
    if len(rows) > 1:
        said.append(
            "This is one recording and one trained model, so no interval can be given; "
            f"differences under {NEGLIGIBLE:.1%} are called none."
        )
    return said


def _longer(first: Row, row: Row) -> str:
    relative = row.relative_to(first)
    cost = row.flops_per_event / first.flops_per_event if first.flops_per_event else 1.0
    price = f"for {cost:.2f} times its FLOPs per event"
    if relative < -NEGLIGIBLE:
        return (
            f"Sleeping longer helps here: the loss of {row.policy} is {-relative:.2%} below "
            f"that of {first.policy}, {price}."
        )
    if relative > NEGLIGIBLE:
        return (
            f"Sleeping longer does not help here: the loss of {row.policy} is {relative:.2%} "
            f"above that of {first.policy}, {price}."
        )
    return (
        f"Sleeping longer does not help here: {row.policy} and {first.policy} have the same loss "
        f"({relative:+.2%}), {price}."
    )


def _adaptive(row: Row, control: Row, first: Row, fixed: Sequence[Row]) -> str:
    """Whether a policy beats the reference, its shuffled control, and a mixture of fixed ones."""
    relative, against = row.relative_to(first), row.relative_to(control)
    sentence = (
        f"{row.policy}: {_than(relative, first.policy)}, with {row.mean_passes:.2f} passes a "
        f"window; {_than(against, 'the same passes shuffled over the windows')}"
    )
    if against < -NEGLIGIBLE:
        sentence += ", so here it mattered when it slept"
    else:
        sentence += ", so nothing shows that it knows when to sleep"
    mixture = _mixture(row.flops_per_event, fixed)
    if mixture is None:
        return f"{sentence}."
    loss = (row.loss - mixture) / abs(mixture) if mixture else 0.0
    return f"{sentence}; {_than(loss, 'a mixture of fixed passes at the same cost')}."


def _than(relative: float, other: str) -> str:
    if abs(relative) <= NEGLIGIBLE:
        return f"no better and no worse than {other} ({relative:+.2%})"
    better = "better" if relative < 0 else "worse"
    return f"{abs(relative):.2%} {better} than {other}"


def _mixture(flops: float, fixed: Sequence[Row]) -> float | None:
    """Loss on the lower convex hull of the fixed rows at this cost, or None outside their costs."""
    points = sorted((row.flops_per_event, row.loss) for row in fixed)
    if len(points) < 2 or not points[0][0] <= flops <= points[-1][0]:
        return None
    # At any cost, the hull is the best straight line between two points around it.
    lines = [
        left[1] + (right[1] - left[1]) * (flops - left[0]) / (right[0] - left[0])
        for left in points
        for right in points
        if left[0] < right[0] and left[0] <= flops <= right[0]
    ]
    return min(lines, default=None)
