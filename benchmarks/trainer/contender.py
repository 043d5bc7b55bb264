"""One training by one contender, in a process of its own (or several, under torchrun): prints its figures as JSON.

python -m benchmarks.trainer.contender plain|ours FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from finetune_trainer.process import environment


def main() -> None:
    """Of several processes, the first prints."""
    name, directory = sys.argv[1], Path(sys.argv[2])
    environment.prepare(processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if name == "plain":
        from benchmarks.trainer.plain import train_with_trl as train
    else:
        from benchmarks.trainer.ours import train_with_finetune_trainer as train
    figures = train(directory)
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
