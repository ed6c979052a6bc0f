"""Parts of `python -m dreamer.sweep`. Only `cluster` imports Ray, when a sweep starts."""
