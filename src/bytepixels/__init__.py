"""Diffusion models from scratch: the equations under their own names, and the tools to use them on images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .threads import set_up_threads
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .api import (  # noqa: F401
        Run,
        Stop,
        doctor,
        import_run,
        list_runs,
        model_names,
        prune_runs,
        pull,
        stream,
        train,
        train_autoencoder,
        verify,
    )
    from .public import *  # noqa: F403

# of api.py, which needs more than the mathematics do
DOOR = (
    "Run",
    "Stop",
    "doctor",
    "import_run",
    "list_runs",
    "model_names",
    "prune_runs",
    "pull",
    "stream",
    "train",
    "train_autoencoder",
    "verify",
)

set_up_threads()  # before torch loads


def __getattr__(name: str) -> Any:
    """Load the public names when the first of them is asked for (PEP 562): they need torch, and `--help` does not."""
    if name in DOOR:
        return getattr(import_module(".api", __name__), name)
    if name == "__all__":
        return __dir__()
    if not name.startswith("__"):
        public = import_module(".public", __name__)
        globals().update({each: getattr(public, each) for each in public.__all__})
        if name in globals():  # also a module of the package, such as bytepixels.core
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*import_module(".public", __name__).__all__, *DOOR]
