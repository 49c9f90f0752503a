"""Cooperative stopping of long work: it checks a flag between steps, saves, and ends."""


class StoppedError(Exception):
    """Raised inside a drawing that is no longer wanted."""


class Stop:
    """A stop request, set from any thread or by a signal."""

    signal: int = 0  # its number; 0: nobody did

    def ask(self, signal: int = 2) -> None:
        """Request a stop; 2 is the signal number of Ctrl-C."""
        self.signal = signal

    def watch(self, step: int, x: object) -> None:
        """Raise StoppedError between two steps of a sampler once a stop was requested."""
        if self.signal:
            raise StoppedError
