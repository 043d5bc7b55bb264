"""How the operator behaves with thousands of FineTuneJobs: `python -m benchmarks.controller --help`.

The API server, etcd, the Job controller, the scheduler and the garbage collector are real; kwok plays the nodes and
what their Pods answer. Every time is from the API server's audit log: the measuring process adds none of its own.
"""
