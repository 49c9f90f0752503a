"""--budget: from a time to a number of images, reckoned from the measured rate until the end."""

import math
import time

from .. import events
from ..config.units import seconds_of
from ..errors import InputError
from ..events import Work, duration

FIRST = 1.0  # seconds of training, after which its rate is worth something
GROWTH = 5.0  # at first each look comes so many times as late as the one before; then after half of what is left
CLOSE = 0.01  # of the budget: what is left then is not worth another look
END = 0.01, 3.0  # what comes after the last step (a checkpoint, leaving): this share of the budget, at most so long
LEAST_STEPS, GOOD_STEPS = 200, 1_000  # fewer teach nothing; after so many first shapes can be seen


class TimeBudget:
    """How many images fit into what is left of `limit` seconds, of which `spent` went to earlier sessions.

    began: when this session began, by time.monotonic(): the start of the command, so that all that it does counts.
    """

    def __init__(self, limit: float, spent: float, seen: int, began: float | None = None):
        self.limit, self.spent = limit, spent
        self.began = time.monotonic() if began is None else began
        self.looked, self.seen = time.monotonic(), seen  # at the last look
        self.looks, self.aside = 0, 0.0  # how many there were; seconds since the last that were not training
        self.next, self.next_seen = self.looked + min(FIRST, self.left / 20), math.inf

    @property
    def left(self) -> float:
        """Seconds until the time is up; below 0 after that."""
        return self.limit - self.spent - (time.monotonic() - self.began)

    def images(self, seen: int, reserved: float = 0.0) -> int:
        """The new budget in images where it is time to look again, else 0; `seen`: so far.

        reserved: seconds that previews still take.
        """
        now = time.monotonic()
        if (now < self.next and seen < self.next_seen) or seen == self.seen:
            return 0
        rate = (seen - self.seen) / max(now - self.looked - self.aside, 1e-9)
        left = max(0.0, self.left - reserved - min(END[0] * self.limit, END[1]))
        grown = GROWTH * (now - self.looked)
        self.looked, self.seen, self.aside, self.looks = now, seen, 0.0, self.looks + 1
        wait = min(left / 2, grown) if left > CLOSE * self.limit else math.inf
        self.next, self.next_seen = now + wait, seen + wait * rate  # sooner when it has become faster
        return seen + int(left * rate)


class Preparation:
    """Packing and encoding before a training, of whose --budget they are a part: where they take most of it that is
    said early, and where they have used it up they end, with what is done kept."""

    def __init__(self, budget: str | None = None, began: float = 0.0):
        """budget: None does not limit them. began: when the command did, by time.monotonic()."""
        self.budget, self.began, self.said = budget, began, ""

    def show(self, progress: Work, what: str, done: int, total: int) -> None:
        """Count and show that `done` of the total is done of `what`. InputError where the budget is over before."""
        progress.total = total
        progress.update(done)
        if self.budget is None or done >= total:
            return
        limit, passed = seconds_of(self.budget), time.monotonic() - self.began
        if passed >= limit:
            raise used_up(self.budget, passed, f", while {what} ({done:,} of {total:,} images)")
        left = (total - done) / progress.rate if progress.settled else 0.0
        if left > limit / 2 and self.said != what:
            self.said = what
            then = "what is done is kept, so that the next training begins sooner"
            events.note(f"note: {what} takes {duration(left)} more, of --budget {self.budget}; {then}")


UNLIMITED = Preparation()


def used_up(budget: str, passed: float, where: str = "") -> InputError:
    """The error of a budget that was over before training began."""
    said = f"--budget {budget} was over before training began, after {duration(passed)}{where}"
    return InputError(f"{said}; what was done is kept, and the same command now begins sooner")


def extended(limit: float, spent: float, seen: int, rate: float) -> int:
    """The budget in images of a run that used up a smaller one: what it saw, and what `rate` images/s make of the rest.

    0 where nothing worth mentioning is left.
    """
    left = limit - spent
    return seen + max(1, int(left * rate)) if left > CLOSE * limit else 0
