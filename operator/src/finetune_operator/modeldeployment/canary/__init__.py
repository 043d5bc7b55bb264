"""rollout.type Canary: the next model answers a share of the requests, and is compared with the one that serves."""
