"""`init`: a FineTuneJob to begin with, with comments. Pure."""

from __future__ import annotations

METHODS = ("SFT", "DPO")
FIRST_MODEL = "s3://bucket/models/NAME"
FIRST_DATASET = "s3://bucket/datasets/train.jsonl"


def job_yaml(
    name: str,
    *,
    model: str,
    dataset: str,
    namespace: str | None = None,
    validation: str | None = None,
    method: str = "SFT",
    adapter: str = "LoRA",
) -> str:
    """The YAML. What is commented out is chosen from the dataset and the model."""
    place = f"  namespace: {_quoted(namespace)}\n" if namespace else ""
    held_out = f"    validation: {{uri: {_quoted(validation)}}}" if validation else "    validation: {splitPercent: 10}"
    examples = "pairs of a preferred and another answer" if method == "DPO" else "chats, or prompt and completion"
    return f"""apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata:
  name: {_quoted(name)}
{place}spec:
  # className: default           # omitted: the default FineTuneClass (kubectl get ftc)
  # runId: "1"                   # change it to run again (kubectl finetune rerun {name})
  model: {{uri: {_quoted(model)}}}   # s3://bucket/folder or hf://org/name@revision
  method: {{type: {method}}}           # SFT: learn from examples; DPO: from preferences
  adapter: {{type: {adapter}}}         # LoRA; QLoRA: less memory; Full: all weights
  dataset:
    training: {{uri: {_quoted(dataset)}}}   # JSON Lines: {examples}
{held_out}   # held-out examples: the loss on them shows overfitting
  # Chosen from the dataset and the model unless you set them (status.resolved shows the values)
  # hyperparameters:
  #   epochs: 3
  #   batchSize: 16
  #   learningRate: 2.0e-4
  #   maxLength: 2048
  # parallelism: {{nodes: 1, processesPerNode: 1, strategy: DDP}}
  # checkpoints: {{keep: 3, best: {{metric: EvalLoss, goal: Minimize}}}}
  # retryLimit: 3                # failed attempts; evictions and lost nodes never count
  # activeDeadlineSeconds: 86400
"""


def _quoted(text: str) -> str:
    """A string of YAML; what YAML takes for a line break or a terminal would interpret is escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in escaped) + '"'
