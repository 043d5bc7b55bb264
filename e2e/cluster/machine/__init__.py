"""What this machine gives: packages, processes, ports, control groups, kernel settings."""
