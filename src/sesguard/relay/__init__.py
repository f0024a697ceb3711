"""The submission service: who may send what, and how it gets to the upstream or into the queue."""
