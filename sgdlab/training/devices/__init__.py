"""Real devices: the mesh, where things lie on it, how gradients are averaged, and many hosts.

Empty on purpose: `launching` must be importable before jax is.
"""
