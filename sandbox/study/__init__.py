"""Studies across runs: fork, compare, estimate, verify."""
