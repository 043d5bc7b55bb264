"""The synchronous client, made from `aio` by `make generate`, but for its connection."""
