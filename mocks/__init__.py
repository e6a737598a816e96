"""A bench with an answer: one hidden truth behind simulated instruments.

Nothing that ships imports this package; the runner loads it by name when an experiment
says ``mock``.
"""
