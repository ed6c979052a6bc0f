"""Parts of `python -m dreamer.benchmark`. What measures TensorFlow runs in processes of its own."""
