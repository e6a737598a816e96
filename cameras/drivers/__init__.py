"""One frame source a module."""
