"""The types of graders, one file each; `comparison` is what StringCheck and TextSimilarity have in common."""
