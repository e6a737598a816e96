"""One clock: stamps, fits with an uncertainty, and samples averaged over exposures."""
