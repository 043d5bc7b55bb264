"""The scores that a try has reported: whether they can be right, and what they come to."""
