"""Convert --budget, a time, to a number of images, by the measured rate, updated until the end."""

import math
import time

FIRST_LOOK = 1.0  # seconds of training, after which its rate is worth something
LOOK_GROWTH = 5.0  # at first each look comes so many times as late as the one before; then after half of what is left
NEGLIGIBLE_SHARE = 0.01  # of the budget: what is left then is not worth another look
FINAL_RESERVE = (
    0.01,
    3.0,
)  # what comes after the last step (a checkpoint, leaving): this share of the budget, at most so long
LEAST_STEPS, GOOD_STEPS = 200, 1_000  # fewer teach nothing; after so many first shapes can be seen


class TimeBudget:
    """The number of images that fit into `limit` seconds, of which earlier sessions took `spent`.

    began: when this session began, by time.monotonic(): the start of the command, so that all that it does counts.
    """

    def __init__(self, limit: float, spent: float, seen: int, began: float | None = None):
        self.limit, self.spent = limit, spent
        self.began = time.monotonic() if began is None else began
        self.looked, self.seen = time.monotonic(), seen  # at the last look
        self.looks, self.aside = 0, 0.0  # how many there were; seconds since the last that were not training
        self.next, self.next_seen = self.looked + min(FIRST_LOOK, self.left / 20), math.inf

    @property
    def left(self) -> float:
        """Seconds until the time is up; negative after that."""
        return self.limit - self.spent - (time.monotonic() - self.began)

    def images(self, seen: int, reserved: float = 0.0) -> int:
        """The updated budget in images, or 0 if no update is due; `seen`: images so far.

        reserved: seconds that previews still take.
        """
        now = time.monotonic()
        if (now < self.next and seen < self.next_seen) or seen == self.seen:
            return 0
        rate = (seen - self.seen) / max(now - self.looked - self.aside, 1e-9)
        left = max(0.0, self.left - reserved - min(FINAL_RESERVE[0] * self.limit, FINAL_RESERVE[1]))
        grown = LOOK_GROWTH * (now - self.looked)
        self.looked, self.seen, self.aside, self.looks = now, seen, 0.0, self.looks + 1
        wait = min(left / 2, grown) if left > NEGLIGIBLE_SHARE * self.limit else math.inf
        self.next, self.next_seen = now + wait, seen + wait * rate  # sooner when it has become faster
        return seen + int(left * rate)


def extended(limit: float, spent: float, seen: int, rate: float) -> int:
    """The budget in images of a run that used up a smaller one: images seen, and `rate` images/s for the rest.

    0 where nothing worth mentioning is left.
    """
    left = limit - spent
    return seen + max(1, int(left * rate)) if left > NEGLIGIBLE_SHARE * limit else 0
