"""Geometries of convolutions in groups, from a strategy of those without."""

import dataclasses

from hypothesis import strategies as st


def grouped(geometries, most=3):
    """The same geometries with up to so many groups, each with the channels there were."""

    def times(g, k):
        return dataclasses.replace(g, image_channels=g.image_channels * k, map_channels=g.map_channels * k, groups=k)

    return st.builds(times, geometries, st.integers(1, most))
