"""FineTuneJob: preflight, attempts at training, the result."""

from finetune_operator.finetunejob import observe as observe
from finetune_operator.finetunejob import plan as plan
