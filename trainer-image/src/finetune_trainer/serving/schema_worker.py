"""The process that compiles one grammar, to see what it costs: kernel limits end it, and not the server.

llguidance's own limits bound how a grammar's text is parsed and what a token costs, but not the automaton of a
`multipleOf`. So the same compilation is first done here, without the model's tokenizer: its cost hardly depends on it.
"""

from __future__ import annotations

import resource
import sys

MOST_CPU_SECONDS = 3
MOST_MEMORY_BYTES = 256 * 2**20
"""Limit of the address space, of which Python and llguidance take about 30 MiB; schemas in use take a few more."""


def main() -> None:
    """Compile the grammar on stdin, and say on stdout why it can't be followed: nothing if it can."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_SECONDS, MOST_CPU_SECONDS + 1))
    from llguidance import LLMatcher, LLTokenizer

    matcher = LLMatcher(LLTokenizer("byte"), sys.stdin.read(), log_level=0)
    if not matcher.is_error():
        matcher.compute_logit_bias()
    sys.stdout.write(matcher.get_error() if matcher.is_error() else "")


if __name__ == "__main__":
    main()
