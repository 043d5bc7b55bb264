"""Graders: each scores one output of a model from 0 to 1, with the semantics of OpenAI's graders.

No model is loaded and no I/O is done here, so evaluation, training and servers can all grade by it. `compile_graders`
checks the graders of a spec once; a `CompiledGrader` then scores any number of outputs. A new type of grader is a
module here, a line in graders.py, and its settings in finetune_api.evaluation.
"""
