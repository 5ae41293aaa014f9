"""Synthetic tasks: what must be remembered is read first, and asked for after it was evicted.

Import from the modules: `task` (what a task is), `registry` (a task by its name), one file per
task, and `mixed` (difficulty that comes in bursts).
"""
