"""`kubectl finetune`: a plugin of kubectl. It runs kubectl underneath."""
