"""Measurements before a training: precision, compilation, memory, and the advice of data doctor."""
