"""What flags an example: rules on its texts, and a classifier of the class. What is flagged is never repeated."""
