"""Parts of one's own, each in some twenty lines: python -m examples.own_schedule, and look at x."""
