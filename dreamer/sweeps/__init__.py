"""What `python -m dreamer.sweep` is made of. Only `cluster` loads Ray, when it is needed."""
