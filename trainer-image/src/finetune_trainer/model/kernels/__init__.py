"""Kernels for training on GPUs: attention over packed rows, and fused norms, MLPs and rotary embeddings."""
