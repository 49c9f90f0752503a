"""All checks of `bytepixels verify`; verify() returns one Check per row."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from ..events import Work
from . import bound, exact, moments, orders, seeds
from .check import Check


class Section(NamedTuple):
    """Checks of one kind."""

    title: str
    about: str  # the data, and what is shown
    run: Callable[[], Iterator[Check]]


ORDERS = Section("Order of convergence of the deterministic samplers", orders.ABOUT, orders.order_checks)
SECTIONS = [
    ORDERS,
    Section("Exponential integration of Gaussian data", exact.ABOUT, exact.exact_checks),
    Section("Mean and variance of the samplers that draw noise", moments.ABOUT, moments.moment_checks),
    Section("Variational bound (ELBO), in nats per dimension", bound.ABOUT, bound.bound_checks),
    Section("An image depends on its seed alone", seeds.ABOUT, seeds.seed_checks),
]


def verify() -> list[Check]:
    """Run every check on the CPU, which takes some seconds, with progress events.

    What raises an exception becomes a failed check with a note; the sections after it still run.
    """
    checks = []
    with Work("verify", len(SECTIONS), "sections") as work:
        for done, section in enumerate(SECTIONS):
            began = time.monotonic()
            try:
                for check in section.run():
                    now = time.monotonic()
                    checks.append(replace(check, section=section.title, seconds=now - began))
                    work.update(done, check.name)
                    began = now
            except Exception as error:
                note = f"{type(error).__name__}: {error}"
                checks.append(Check("could not be finished", math.nan, note=note, section=section.title))
        work.update(len(SECTIONS))
    return checks
