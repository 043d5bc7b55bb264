"""What checkpoints cost: the time that training stands still, transfers, and the way back."""
