"""Secret keys, evaluation keys, and the files that hold them."""
