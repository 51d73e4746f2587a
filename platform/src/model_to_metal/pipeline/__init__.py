"""From a commit to records: what has to run (plan, closure, cache) and how.

On this machine by `engine` and `local_executor`, on a cluster by `argo`.
"""
