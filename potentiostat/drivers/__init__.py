"""One instrument a module."""
