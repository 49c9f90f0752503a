"""Images one below the other, on white: python -m bench.sheets OUT.png A.png B.png ..."""

import sys

from PIL import Image

GAP = 8


def main() -> None:
    out, *files = sys.argv[1:]
    parts = [Image.open(file).convert("RGB") for file in files]
    size = max(part.width for part in parts), sum(part.height + GAP for part in parts) - GAP
    sheet, y = Image.new("RGB", size, "white"), 0
    for part in parts:
        sheet.paste(part, (0, y))
        y += part.height + GAP
    sheet.save(out)


if __name__ == "__main__":
    main()
