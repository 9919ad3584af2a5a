"""Tools around training: `Meter` averages losses, ``python -m minidl doctor`` checks the machine."""
