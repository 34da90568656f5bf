"""From a scan to the grid and the intensities that a network expects."""
