"""What every kind is made of: plans, conditions, ownership, references. Pure."""
