"""Selection: which examples a run trains on and is measured on, decided once by preflight."""
