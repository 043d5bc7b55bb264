"""The types of graders, a file for each; `comparison` is what StringCheck and TextSimilarity have in common."""
