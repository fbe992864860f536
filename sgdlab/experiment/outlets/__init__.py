"""Metrics out: TensorBoard and Weights & Biases, fed from a run folder while it is written.

Where the numbers of a run go is no part of its experiment: a file runs the same without these
packages. So they are chosen on the command line, or by `export_run` afterwards.
"""
