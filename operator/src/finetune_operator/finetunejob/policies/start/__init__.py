"""The policies that say when the next preflight or attempt may start."""
