"""What `bytepixels verify` checks: the core against exact laws, each number beside the one it should be."""

from collections.abc import Callable

from .bound import bound_checks
from .common import Check
from .moments import moment_checks
from .orders import Curve, measure_curves, order_checks
from .pictures import picture_checks
from .processes import process_checks
from .seeds import seed_checks

__all__ = ["Check", "Curve", "sections"]


def sections(curves: list[Curve]) -> dict[str, Callable[[], list[Check]]]:
    """{title: the checks of that section, still to be run}, in the order in which they are shown.

    The first section puts what it measures into `curves`, for the plot.
    """

    def orders() -> list[Check]:
        curves.extend(measure_curves())
        return order_checks(curves)

    return {
        "Order of convergence (VP: alpha^2 + sigma^2 = 1; EDM: alpha = 1; flow: alpha + sigma = 1)": orders,
        "Samplers that draw noise: mean and variance on Gaussian data": moment_checks,
        "Processes and predictions: there and back": process_checks,
        "The variational bound of Gaussian data, in nats": bound_checks,
        "An image depends on its seed alone": seed_checks,
        "Real images (1,797 digits) and their exact denoiser": picture_checks,
    }
