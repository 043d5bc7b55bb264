"""What is written: a new spec (`init`), its checks (`validate`), and patches (`suspend`, `cancel`, `rerun`)."""
