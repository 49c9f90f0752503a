"""Numbers in sentences."""


def many(number: int, one: str, several: str | None = None) -> str:
    """ "1 image", "2,000 images"."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
