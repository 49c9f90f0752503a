"""bytepixels verify: the core against exact laws, each number beside the one it should be."""
