"""Mode LearningCurve: its trials, the curve through their scores, and what it says of more data."""
