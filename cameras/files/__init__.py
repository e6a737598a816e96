"""A camera that has already finished: readers of frame files."""
