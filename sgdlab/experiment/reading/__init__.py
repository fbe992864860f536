"""How a file is read: YAML as plain data, keys by their paths, unions, problems in one line each.

Knows no experiment: the rooms above say which keys there are.
"""
