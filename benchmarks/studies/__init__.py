"""The experiments, each with its claim, setting and result."""
