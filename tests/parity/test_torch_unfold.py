"""F.unfold and F.fold against PyTorch: 200 drawn cases, the outputs and the gradients."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.testing import conv_geometries
from tests.helpers.with_torch import BOTH, GRAD, array, count, torch


@settings(max_examples=200)
@given(conv_geometries(max_batch=3), st.booleans(), st.integers(0, 2**16))
def test_outputs_and_gradients(g, single, seed):
    rng = np.random.default_rng(seed)
    shape = g.image_shape[1:] if single or not g.batch else g.image_shape
    x = rng.standard_normal(shape)
    arguments = {"kernel_size": g.kernel, "dilation": g.dilation, "padding": g.padding, "stride": g.stride}
    columns = rng.standard_normal(tuple(torch.nn.Unfold(**arguments)(torch.tensor(x)).shape))
    results = []
    for m in BOTH:
        image, y = m.tensor(x, requires_grad=True), m.tensor(columns, requires_grad=True)
        unfolded = m.nn.Unfold(**arguments)(image)
        folded = m.nn.Fold(g.image_size, **arguments)(y)
        gx, gy = GRAD[m](unfolded, [image], m.tensor(columns)), GRAD[m](folded, [y], m.tensor(x))
        results.append([array(t) for t in (unfolded, folded, *gx, *gy)])
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    count("operations", "unfold and fold")
