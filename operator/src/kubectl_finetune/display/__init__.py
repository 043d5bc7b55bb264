"""What is printed, and how: rows, tables, numbers, and the next step to take."""
