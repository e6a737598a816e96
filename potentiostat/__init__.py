"""Says what the cell did, and does what it is told: drivers, techniques, limits."""
