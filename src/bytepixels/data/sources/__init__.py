"""Sources of images: folders, archives, shards, arrays and known data sets, one file a kind."""
