"""Training a run: the loop, its tasks, budgets, previews, and going on where it stopped."""
