"""Read folders saved by other programs; none of those programs is needed."""
