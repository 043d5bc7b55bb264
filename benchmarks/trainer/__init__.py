"""How fast the trainer trains, and how much memory it takes, against plain TRL with the same settings."""
