"""How an experiment is run: prepared, made point by point, recorded, ended and gone on with.

`runner` is the way from a config to a run, `making` the points of it in this process, `isolating`
each in a process of its own, and `hosts` one run of several processes.
"""
