"""Training methods: what each trains on, and the Trainer that it trains with."""
