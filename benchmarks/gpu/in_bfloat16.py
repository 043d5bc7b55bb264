"""`python -m finetune_trainer` on a CPU in the precision of a GPU: float32 weights, computed with in bfloat16."""

from __future__ import annotations

from finetune_trainer.model import adapters

adapters.uses_bfloat16 = lambda: True  # before those import it that ask

from finetune_trainer.__main__ import main  # noqa: E402

main()
