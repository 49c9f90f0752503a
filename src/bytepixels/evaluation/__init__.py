"""A run in, a record out: sample quality, sampler comparison, likelihood, reconstruction."""
