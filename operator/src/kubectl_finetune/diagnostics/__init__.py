"""`diagnose`: a zip file to send to somebody else, without secrets."""
