"""From a commit to records: what has to run (plan, closure, cache) and how (engine, executors)."""
