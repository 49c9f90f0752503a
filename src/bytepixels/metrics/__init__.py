"""Arrays in, numbers out: features, distances, precision and recall, memorisation. It knows no run and no config."""
