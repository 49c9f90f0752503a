"""Training of a run: the loop, its tasks, budgets, previews, and resuming."""
