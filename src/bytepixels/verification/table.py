"""Print the checks of verify as a table, a plot, and one line that says whether all passed."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import events
from ..runs.run_directory import make_folder
from ..wording import many
from .check import COARSE, FINE, Check
from .plot import plot_orders
from .suite import ORDERS, SECTIONS, verify

WIDTH = 120


def verify_to(out: Path) -> list[Check]:
    """Run every check, print the table, and write out / verify.png. InputError for a bad `out`."""
    make_folder(out, "--out")
    checks = verify()
    events.say(*table(checks))
    orders, plotted = [check for check in checks if check.section == ORDERS.title and check.errors], ""
    if orders:  # else measuring them broke, and a row says so
        plot_orders(orders, out / "verify.png")
        plotted = f"; plot: {out / 'verify.png'}"
    failed = [f"{check.section}: {check.name}" for check in checks if not check.passed]
    result = f"{len(failed)} FAILED ({'; '.join(failed)})" if failed else "all passed"
    events.say(f"{many(len(checks), 'check')}, {result} in {sum(check.seconds for check in checks):.0f} s{plotted}")
    return checks


def table(checks: Sequence[Check]) -> Iterator[str]:
    """Format the sections: what is checked, how, and the rows."""
    for section in SECTIONS:
        yield section.title
        yield textwrap.fill(section.about, WIDTH, initial_indent="  ", subsequent_indent="  ")
        yield f"\n  {'':<43}{'measured':>10}{'expected':>18}"
        yield from (row(check) for check in checks if check.section == section.title)
        yield ""


def row(check: Check) -> str:
    """Format one check in columns."""
    expected = f"{check.expected:.5g}" + (f" ± {check.tolerance:.2g}" if check.tolerance else "")
    verdict, note = "ok  " if check.passed else "FAIL", check.note
    if check.errors:
        errors = f"error {check.errors[COARSE]:.1e} in {COARSE} steps, {check.errors[FINE]:.1e} in {FINE}"
        note = f"{note}; {errors}" if note else errors
    return f"  {check.name:<43}{_number(check.measured):>10}{expected:>18}  {verdict}  {note}".rstrip()


def _number(value: float) -> str:
    """Format five digits, or the size of a residual."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.5g}"
