"""Models for other programs: files that draw without bytepixels."""
