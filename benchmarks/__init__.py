"""Experiments that compare lpoptax with other optimizers; `python -m benchmarks --help`."""
