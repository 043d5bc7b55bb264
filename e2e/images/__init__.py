"""The images: what they are built on, what builds them, and which of them the cluster runs."""
