"""Generation for a server: requests are generated together, and join and leave while others go on."""
