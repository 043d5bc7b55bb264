"""What runs in the Pods: preflight, training, evaluation and the fetching of models."""

import sys

# lm-eval brings it for metrics that are not used here, and transformers would import it in every process: 137 MB.
sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]
