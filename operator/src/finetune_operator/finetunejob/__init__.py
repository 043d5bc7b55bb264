"""FineTuneJob: preflight, attempts at training, the result; and what goes with it at its end."""
