"""The guard's rules: each takes the model's folder and gives its findings.

A rule is one file with `check`; `stages.guard` alone knows the list.
"""
