"""`diagnose`: a zip file without secrets, to send to others."""
