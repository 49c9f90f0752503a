"""How long work is asked to stop: between two steps it looks, saves, and ends."""


class StoppedError(Exception):
    """What is being drawn is not wanted any more."""


class Stop:
    """Whether somebody asked, from any thread or by a signal."""

    signal: int = 0  # its number; 0: nobody did

    def ask(self, signal: int = 2) -> None:
        """Ask; 2 is Ctrl-C's number."""
        self.signal = signal

    def watch(self, step: int, x: object) -> None:
        """Between two steps of a sampler: raises StoppedError once it was asked for."""
        if self.signal:
            raise StoppedError
