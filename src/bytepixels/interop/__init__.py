"""Other programs' folders: what they saved, as networks of ours. None of those programs is needed to read them."""
