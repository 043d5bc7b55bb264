"""FineTuneJob: preflight, attempts at training, the result; and what goes with it at its end."""

from finetune_operator.finetunejob import deletion as deletion
from finetune_operator.finetunejob import observe as observe
from finetune_operator.finetunejob import plan as plan
