"""Where queries are evaluated: threads of this process, child processes, or a Ray cluster."""
