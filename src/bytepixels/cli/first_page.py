"""The output of bytepixels without a verb: its version, or the page that lists the verbs."""

from ..verbs import PAGE
from ..version import __version__


def first_page(words: list[str]) -> str | None:
    """Return the text for --help or --version; None where a verb is given."""
    if not words or words[0] in ("-h", "--help", "help"):
        return PAGE
    return f"bytepixels {__version__}" if words[0] in ("--version", "-V", "version") else None
