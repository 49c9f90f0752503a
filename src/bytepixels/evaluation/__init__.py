"""Measure a run: sample quality, sampler comparison, likelihood, reconstruction."""
