"""The one training loop, and the records that it keeps."""
