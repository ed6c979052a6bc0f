"""Figures and tables from run directories, beside published results. Imports no TensorFlow."""
