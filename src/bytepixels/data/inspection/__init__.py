"""Inspection of a data set before training: damaged files, duplicates, image statistics."""
