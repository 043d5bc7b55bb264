"""Graders: each scores a model's outputs from 0 to 1, with the semantics of OpenAI's graders.

No model is loaded here, and what is asked of another model goes through a `Judge` or an `Embedder` that the caller
gives, so evaluation, training and servers can all grade by it. `compile_graders` checks the graders of a spec once;
`grade_rows` then grades any number of rows by all of them: each is Passed, Failed, or Errored with a code of OpenAI's.
`statistics` makes means, intervals and comparisons of the scores. A new type of grader is a file in graders/, which
provides what interface.py says, a line in registered_graders.py, and its settings in finetune_api.graders.
"""
