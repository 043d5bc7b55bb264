"""How many completions a second reinforcement fine-tuning makes and learns from, against TRL's GRPOTrainer."""
