"""`watch` and `logs`: a run as it goes on."""
