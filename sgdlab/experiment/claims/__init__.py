"""Claims: what an experiment says will come out, in a small vocabulary, and whether it did.

`vocabulary` is what may be written, `checking` what can be refused before anything runs,
`measuring` the numbers of one replicate, `estimating` what they say under resampling, and `judging`
the verdicts.
"""
