"""The asynchronous client. `sync` is made from it, but for its connection: `make generate`."""
