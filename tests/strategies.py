"""Hypothesis strategies that several test files share."""

from hypothesis import strategies as st

from minidl.kernels.geometry import ConvGeometry


@st.composite
def conv_geometries(draw: st.DrawFn) -> ConvGeometry:
    """A small valid geometry, whose axes differ; the batch may be empty."""

    def pair(least: int, most: int) -> tuple[int, int]:
        return draw(st.tuples(st.integers(least, most), st.integers(least, most)))

    n, c, o = draw(st.integers(0, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    kernel, stride, padding, dilation = pair(1, 4), pair(1, 3), pair(0, 3), pair(1, 3)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [max(1, r - 2 * p) + extra for r, p, extra in zip(reach, padding, pair(0, 6), strict=True)]
    return ConvGeometry.of_conv2d((n, c, *size), (o, c, *kernel), stride, padding, dilation)
