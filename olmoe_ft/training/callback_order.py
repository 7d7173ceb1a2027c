"""The order of a trainer's callbacks, in one list. Each is called in this order at every event.

They are added where they are made; here is what depends on the order, and `check_order` looks at it before training.
"""

from collections.abc import Sequence

from transformers import TrainerCallback

from olmoe_ft.training.adapter_checks import AdapterChecks
from olmoe_ft.training.launch_guard import LaunchGuard
from olmoe_ft.training.optimizer.moved import MovedCallback
from olmoe_ft.training.performance import PerformanceCallback
from olmoe_ft.training.progress import ProgressBar
from olmoe_ft.training.reference import ReferenceCheck
from olmoe_ft.training.router.drift import RoutingDrift
from olmoe_ft.training.router.table import RoutingFiles
from olmoe_ft.training.stop import StopCallback
from olmoe_ft.training.tracking import TrackingCallback

ORDER: tuple[type[TrainerCallback], ...] = (
    RoutingDrift,  # the probe of the routers as they start, before any check runs the model
    AdapterChecks,  # what ends a run in its first step, before the guard calls that step taken
    ReferenceCheck,
    PerformanceCallback,  # adds `perf/…` to a record
    MovedCallback,  # adds `optim/moved`
    ProgressBar,  # shows a record that is complete
    LaunchGuard,  # keeps the run directory from the first step on, before anything is saved into it
    TrackingCallback,  # writes a record that is complete
    RoutingFiles,  # makes the table of what has been written
    StopCallback,  # ends a run that is saved: behind it nothing hears that a checkpoint is whole
)


def check_order(callbacks: Sequence[TrainerCallback]) -> None:
    """Fail where a callback is called too early or too late; those that are not listed may be anywhere."""
    places = [ORDER.index(type(callback)) for callback in callbacks if type(callback) in ORDER]
    assert places == sorted(places), f"callbacks are out of order: {[ORDER[place].__name__ for place in places]}"
