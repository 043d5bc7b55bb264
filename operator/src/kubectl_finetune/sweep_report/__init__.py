"""`report fts/NAME`: what a sweep has found, as one HTML page."""
