"""Datasets, prepared and in batches."""
