import sys

from .cli.first_page import first_page
from .cli.output import unread_output_is_dropped


def main() -> int:
    """Run one command. Without a verb nothing else is loaded, so that help and version are there at once."""
    if (page := first_page(sys.argv[1:])) is not None:
        with unread_output_is_dropped():
            print(page)
        return 0
    try:
        from .cli.main import main as run
    except KeyboardInterrupt:
        print("\nbytepixels: interrupted", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
