"""What only a GPU can show: the same losses as on a CPU, QLoRA, DPO, a resume after SIGKILL, and speed."""
