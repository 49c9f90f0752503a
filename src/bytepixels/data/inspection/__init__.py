"""What a data set looks like before training: damaged files, copies, statistics of its images."""
