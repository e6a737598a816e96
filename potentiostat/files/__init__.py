"""An instrument that has already finished: readers of other programs' files."""
