"""The process: watches, work queue, workers, election, servers."""
