"""Which examples a run is trained and evaluated on, decided once by preflight."""
