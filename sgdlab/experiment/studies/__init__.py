"""What else an experiment is asked: whether its claims hold, what a precision costs, and how long a
gradient takes.

`previews` says when who computes, with no training at all.
"""
