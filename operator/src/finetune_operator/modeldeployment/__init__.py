"""ModelDeployment: serving behind a gate."""

from finetune_operator.modeldeployment import observe as observe
from finetune_operator.modeldeployment import plan as plan
