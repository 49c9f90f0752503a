"""--budget: from a time to a number of images, reckoned from the measured rate until the end."""

import math
import time

FIRST = 5.0  # seconds of a session, after which its rate is worth something
GROWTH = 5.0  # at first each look comes so many times as late as the one before; then after half of what is left
CLOSE = 0.01  # of the budget: what is left then is not worth another look


class TimeBudget:
    """How many images fit into what is left of `limit` seconds, of which `spent` went to earlier sessions."""

    def __init__(self, limit: float, spent: float, seen: int):
        self.limit, self.left_at_first, self.began = limit, limit - spent, time.monotonic()
        self.looked, self.seen = 0.0, seen
        self.next, self.next_seen = min(FIRST, self.left_at_first / 4), math.inf

    def images(self, seen: int) -> int:
        """The new budget in images where it is time to look again, else 0; `seen`: so far."""
        session = time.monotonic() - self.began
        if (session < self.next and seen < self.next_seen) or seen == self.seen:
            return 0
        rate = (seen - self.seen) / (session - self.looked)
        left = max(0.0, self.left_at_first - session)
        self.looked, self.seen = session, seen
        wait = min(left / 2, GROWTH * session) if left > CLOSE * self.limit else math.inf
        self.next, self.next_seen = session + wait, seen + wait * rate  # sooner when it has become faster
        return seen + int(left * rate)


def extended(limit: float, spent: float, seen: int, rate: float) -> int:
    """The budget in images of a run that used up a smaller one: what it saw, and what `rate` images/s make of the rest.

    0 where nothing worth mentioning is left.
    """
    left = limit - spent
    return seen + max(1, int(left * rate)) if left > CLOSE * limit else 0
