"""What the grading library costs beside the libraries that it calls."""
