"""Models: where they are, what is refused in them, and how they are loaded, adapted, and written."""
