"""One module for each way to a microscope; found by name, they never import each other."""
