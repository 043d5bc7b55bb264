"""spec.safety: harmful requests in several forms are put to every model, and what came of them is counted."""
