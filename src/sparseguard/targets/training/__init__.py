"""Training of targets: loop, hooks, history, operations and stored codes."""
