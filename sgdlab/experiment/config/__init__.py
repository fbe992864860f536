"""What a file says, checked: the typed config, a sweep's points, the cluster and the timelines.

Whatever can be found wrong without jax is found here, so that it is said at once.
"""
