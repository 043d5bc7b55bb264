"""What scores of a sample say of all that could be asked: pure and deterministic, without numpy.

`estimates` is where to begin. No interval over a finite number of examples is ever a point: where all scores are the
same, or all differences are none, it still says how much so many examples can leave unseen.
"""
