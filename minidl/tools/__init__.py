"""Tools around training.

`explain` and `show_graph` show what a model computes, `Meter` averages losses, ``python -m minidl doctor`` checks the
machine.
"""
