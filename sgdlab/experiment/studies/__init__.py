"""What else an experiment is asked: do its claims hold, what does a precision cost, how long does a
gradient take on this machine, and who computes when, which takes no training at all.
"""
