"""Training one run on several devices, of one host or of several (tf.distribute)."""
