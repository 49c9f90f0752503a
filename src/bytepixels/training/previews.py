"""Schedule the sample grids of a training, so that they take a small share of its time."""

from typing import NamedTuple

TIME_SHARE = 0.05  # of the training's time, at most
MAX_GRIDS, MIN_GRIDS = 10, 3  # grids; fewer than MIN_GRIDS, and each is made cheaper instead
FIRST_SHARE, FIRST_SECONDS = 0.1, 60.0  # the first one comes after this share of the budget, or so much time
FORWARD_SHARE = 1 / 3  # of a training step's time for one image: its forward pass


class Preview(NamedTuple):
    """The size and number of steps of one sample grid."""

    images: int
    steps: int


class Previews:
    """A schedule of grids of `images` images in `steps` steps, or cheaper ones: `due` says which, and when.

    asked: how many grids, all of them full ones, evenly over the budget; None lets the time decide.
    passes: of the network for each image and step. done: the share of the budget that is behind when a session begins.
    """

    def __init__(self, asked: int | None, images: int, steps: int, passes: int, done: float):
        self.asked, self.passes = asked, passes
        cheaper = [(images, 20), (images, 10), (4, 10), (4, 5)]
        self.qualities = [Preview(images, steps)]
        self.qualities += [Preview(min(images, n), least) for n, least in cheaper if least < steps]
        self.last, self.drawn = done, 0
        self.spent, self.per_pass = 0.0, 0.0  # seconds: so far, and of one pass as measured

    def due(self, before: float, done: float, seconds: float, rate: float) -> Preview | None:
        """The grid to draw after a step that took the run from share `before` to share `done` of its budget.

        seconds: that the whole session takes. rate: training images per second.
        """
        if self.asked is not None:
            passed = int(done * self.asked + 1e-9) > int(before * self.asked + 1e-9)
            return self.qualities[0] if passed else None
        preview, number = self._affordable(seconds, rate)
        if not number or done < self._next_share(number, seconds) - 1e-9:
            return None
        return preview

    def rest(self, done: float, seconds: float, rate: float) -> float:
        """Seconds that the remaining grids will take."""
        if self.asked is not None:
            number = self.asked - int(done * self.asked + 1e-9)
            return number * self._cost(self.qualities[0], rate)
        preview, number = self._affordable(seconds, rate)
        return number * self._cost(preview, rate)

    def note(self, preview: Preview, done: float, seconds: float) -> None:
        """Record that a grid took so many seconds."""
        self.last, self.drawn = done, self.drawn + 1
        self.spent += seconds
        self.qualities = self.qualities[self.qualities.index(preview) :]  # the next ones are no better
        self.per_pass = seconds / (preview.images * preview.steps * self.passes)

    def _affordable(self, seconds: float, rate: float) -> tuple[Preview, int]:
        """The quality and number of the remaining grids; 0 if the time has no room for one."""
        left = TIME_SHARE * seconds - self.spent if self.per_pass or rate else 0.0  # else nobody knows what one costs
        for preview in self.qualities:
            number = min(int(left / max(self._cost(preview, rate), 1e-9)), MAX_GRIDS - self.drawn)
            if number >= min(MIN_GRIDS, MAX_GRIDS - self.drawn):
                break
            if self.drawn and number:  # the last ones are as good as the first
                break
        if not self.drawn and number < MIN_GRIDS:
            number = min(number, 1)  # costs are a guess before the first: the room is kept for the last one
        return preview, max(0, number)

    def _next_share(self, number: int, seconds: float) -> float:
        """The share of the budget at which the next of `number` grids is due; the last one is due at the end."""
        if self.last == 0 and number > 1:
            return min(FIRST_SHARE, FIRST_SECONDS / max(seconds, 1e-9))
        return self.last + (1 - self.last) / number

    def _cost(self, preview: Preview, rate: float) -> float:
        """Seconds of a grid, by the last one's time, else by the training's speed."""
        per_pass = self.per_pass or (FORWARD_SHARE / rate if rate else 0.0)
        return preview.images * preview.steps * self.passes * per_pass
