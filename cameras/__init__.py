"""The second instrument: frame sources, and readers of frame files."""
