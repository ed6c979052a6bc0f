"""Parts of `python -m dreamer.benchmark`. What measures TensorFlow or OpenGL runs as a service."""
