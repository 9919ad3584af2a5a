"""minidl.explain: each number of its table against another way to find it, and that it leaves the model alone."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.testing import conv_geometries, pool_geometries

F = nn.functional


def image_model(*layers, size=(12, 11), channels=1):
    """The table of a stack of layers for a small image."""
    return minidl.explain(nn.Sequential(*layers), (channels, *size))


# -- sizes ----------------------------------------------------------------------------------------------------------


def check_sizes(layer, x_shape, y_shape):
    """Each text computes the output's size, and starts with the input's."""
    row = minidl.explain(layer, x_shape[1:]).rows[0]
    assert row.output_shape == y_shape[1:]
    texts = list(row.sizes) * (2 if len(row.sizes) == 1 else 1)
    for text, before, after in zip(texts, x_shape[2:], y_shape[2:], strict=True):
        formula, result = text.split(" = ")
        assert eval(formula, {"ceil": math.ceil, "floor": math.floor}) == int(result) == after
        assert str(before) in formula.replace("(", " ").replace("*", " ").split()
    return texts


@given(g=conv_geometries())
def test_the_size_of_a_convolution(g):
    window = g.kernel, g.stride, g.padding
    check_sizes(nn.Conv2d(g.image_channels, g.map_channels, *window, g.dilation), g.image_shape, g.map_shape)
    transposed = nn.ConvTranspose2d(g.map_channels, g.image_channels, *window, g.output_padding, dilation=g.dilation)
    texts = check_sizes(transposed, g.map_shape, g.image_shape)
    assert [int(text.split(" + ")[-1].split(" = ")[0]) for text in texts] == list(g.output_padding)


@given(g=pool_geometries(), flat=pool_geometries(dilated=False), ceil=st.booleans())
def test_the_size_of_a_pooling(g, flat, ceil):
    pool = nn.MaxPool2d(g.kernel, g.stride, g.padding, g.dilation, ceil_mode=g.ceil_mode)
    check_sizes(pool, g.image_shape, g.map_shape)
    pool = nn.AvgPool2d(flat.kernel, flat.stride, flat.padding, ceil)
    x_shape = (1, *flat.image_shape[1:])
    check_sizes(pool, x_shape, pool(minidl.zeros(x_shape)).shape)


def test_the_texts_of_sizes():
    layers = nn.Conv2d(1, 2, 3, 2, 1), nn.ConvTranspose2d(2, 1, 3, 2, 1, 1), nn.Conv2d(1, 1, 3, dilation=2)
    last = nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=1.5), nn.Upsample(size=(9, 8)), nn.MaxPool2d((3, 2), 2)
    flat = nn.Flatten(), nn.Linear(16, 6), nn.Unflatten(1, (1, 2, 3))
    table = image_model(*layers, *last, *flat, size=(8, 8))
    assert [tuple(row.sizes) for row in table.rows] == [
        ("(8 + 2*1 - 3)//2 + 1 = 4",),
        ("(4 - 1)*2 - 2*1 + 3 + 1 = 8",),
        ("(8 + 2*0 - (2*(3 - 1) + 1))//1 + 1 = 4",),
        ("4*2 = 8",),
        ("floor(8*1.5) = 12",),
        ("size = 9", "size = 8"),
        ("(9 + 2*0 - 3)//2 + 1 = 4", "(8 + 2*0 - 2)//2 + 1 = 4"),
        ("1*4*4 = 16",),
        ("16 -> 6",),
        ("1*2*3 = 6",),
    ]


def test_an_output_size_that_the_caller_chose():
    class Unpool(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

        def forward(self, x):
            return self.unpool(*self.pool(x), output_size=x.shape)

    rows = minidl.explain(Unpool(), (1, 5, 4)).rows
    assert rows[0].output_shape == (1, 2, 2)
    assert rows[1].output_shape == (1, 5, 4)
    assert list(rows[1].sizes) == ["(2 - 1)*2 - 2*0 + 2 + 1 = 5", "(2 - 1)*2 - 2*0 + 2 + 0 = 4"]


# -- work and memory ------------------------------------------------------------------------------------------------


def test_multiply_adds_are_those_of_the_loops():
    conv, transposed, linear = nn.Conv2d(2, 3, (3, 2), 2, 1), nn.ConvTranspose2d(3, 2, 3, 2), nn.Linear(4, 5)
    rows = minidl.explain(nn.Sequential(conv, transposed), (2, 6, 5)).rows
    (_, oh, ow), taps = rows[0].output_shape, list(itertools.product(range(3), range(2)))
    assert rows[0].multiply_adds == sum(
        1 for o in range(3) for i in range(oh) for j in range(ow) for c in "ab" for _ in taps
    )
    each_input = [(o, i, j) for o in range(3) for i in range(oh) for j in range(ow)]
    assert rows[1].multiply_adds == sum(1 for _ in each_input for c in range(2) for u in range(3) for v in range(3))
    assert minidl.explain(linear, (4,)).multiply_adds == sum(1 for o in range(5) for i in range(4))
    assert minidl.explain(linear, (7, 4)).multiply_adds == 7 * 20


def test_bytes_count_each_memory_once():
    table = image_model(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.ReLU(), nn.Flatten(), nn.Dropout(), size=(3, 3))
    assert [row.bytes for row in table.rows] == [72, 0, 72, 0, 0]
    assert table.bytes == 144
    double = minidl.explain(nn.Linear(2, 3).double(), (2,))
    assert double.bytes == 24
    assert "float64" in double.title


# -- receptive fields -----------------------------------------------------------------------------------------------


def measured(model, size):
    """The largest extents, over the units in the middle, of a unit's non-zero gradient; all weights are 1."""
    for parameter in model.parameters():
        parameter.detach().fill_(1)
    x = minidl.zeros(1, 1, *size, requires_grad=True)
    y = model(x)
    y = y if y.ndim == 4 else y.reshape(1, 1, 1, -1)
    most = [0, 0]
    # On two diagonals: rows and columns do not depend on each other, but a whole row may have no gradient.
    for off, shift in itertools.product(range(-6, 7), (0, 1)):
        unit = [min(max(n // 2 + i, 0), n - 1) for n, i in zip(y.shape[2:], (off, off + shift), strict=True)]
        (gx,) = minidl.grad(y[0, 0, unit[0], unit[1]], x, retain_graph=True)
        extents = [int(np.ptp(axis)) + 1 if len(axis) else 0 for axis in np.nonzero(gx.numpy()[0, 0])]
        most = [max(pair) for pair in zip(most, extents, strict=True)]
    return tuple(most)


def last_field(model, size):
    """The receptive field of the last row of the table, and the step."""
    row = minidl.explain(model, (1, *size)).rows[-1]
    return row.receptive_field, row.step


kernels = st.tuples(st.integers(1, 3), st.integers(1, 3))
steps = st.tuples(st.integers(1, 2), st.integers(1, 2))


@given(drawn=st.lists(st.tuples(kernels, steps, steps), max_size=2))
def test_the_receptive_field_of_a_chain_is_the_measured_one(drawn):
    layers = [nn.Conv2d(1, 1, k, s, dilation=d, bias=False) for k, s, d in drawn]
    model, (size, step) = nn.Sequential(*layers, nn.AvgPool2d(2)), ((1, 1), (1, 1))
    for k, s, d in [*drawn, ((2, 2), (2, 2), (1, 1))]:  # the recurrence, as in the docstring
        size = tuple(r + d[i] * (k[i] - 1) * step[i] for i, r in enumerate(size))
        step = tuple(j * s[i] for i, j in enumerate(step))
    assert last_field(model, (25, 25)) == (size, step)
    assert measured(model, (25, 25)) == size


@given(drawn=st.lists(st.tuples(st.booleans(), kernels, steps), min_size=1, max_size=2))
def test_the_receptive_field_where_images_grow_and_shrink_is_the_measured_one(drawn):
    layers = [(nn.ConvTranspose2d if up else nn.Conv2d)(1, 1, k, s, bias=False) for up, k, s in drawn]
    model = nn.Sequential(*layers)
    assert last_field(model, (12, 12))[0] == measured(model, (12, 12))


UPWARDS = {
    "4, stride 2": ([nn.ConvTranspose2d(1, 1, 4, 2, 1)], 2, 0.5),
    "3, stride 2": ([nn.ConvTranspose2d(1, 1, 3, 2, 1, 1)], 2, 0.5),
    "below a stride": ([nn.Conv2d(1, 1, 3, 2), nn.ConvTranspose2d(1, 1, 4, 2)], 5, 1),
    "twice": ([nn.ConvTranspose2d(1, 1, 3, 2), nn.ConvTranspose2d(1, 1, 3, 2), nn.Conv2d(1, 1, 2)], 2, 0.25),
    "nearest": ([nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3)], 2, 0.5),
    "nearest, 3 for 2": ([nn.Upsample(size=(18, 18)), nn.Conv2d(1, 1, 2)], 2, 2 / 3),
    "nearest, 2 for 3": ([nn.Upsample(size=(8, 8)), nn.Conv2d(1, 1, 2)], 3, 1.5),
    "bilinear": ([nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(1, 1, 3)], 3, 0.5),
    "bilinear, factor 3": ([nn.Upsample(scale_factor=3, mode="bilinear"), nn.Conv2d(1, 1, 3)], 3, 1 / 3),
    "bilinear, corners kept": ([nn.UpsamplingBilinear2d(size=(23, 23)), nn.Conv2d(1, 1, 2)], 2, 0.5),
}


@pytest.mark.parametrize("name", UPWARDS)
def test_the_receptive_field_of_upsampling(name):
    layers, size, step = UPWARDS[name]
    found = last_field(nn.Sequential(*layers), (12, 12))
    assert found == ((size, size), pytest.approx((step, step)))
    assert measured(nn.Sequential(*layers), (12, 12)) == (size, size)


@pytest.mark.parametrize(("padding", "size"), [(1, (8, 8)), (0, (7, 7))])  # 7: the stride leaves out the last row
def test_a_linear_layer_sees_what_its_inputs_see_together(padding, size):
    model = nn.Sequential(nn.Conv2d(1, 1, 3, 2, padding), nn.Flatten(), nn.Linear((3 + padding) ** 2, 2))
    rows = minidl.explain(model, (1, 8, 8)).rows
    assert rows[0].receptive_field == rows[1].receptive_field == (3, 3)
    assert rows[2].receptive_field == measured(model, (8, 8)) == size
    assert rows[2].step is None


def test_all_units_of_an_image_that_is_made_of_one_see_the_same():
    code = nn.Conv2d(1, 1, 7)
    made = nn.ConvTranspose2d(1, 1, 4), nn.ConvTranspose2d(1, 1, 4, 2)
    rows = image_model(code, *made, size=(7, 7)).rows
    assert [row.receptive_field for row in rows] == [(7, 7)] * 3 == [measured(nn.Sequential(code, *made), (7, 7))] * 3
    assert [row.step for row in rows] == [(0, 0)] * 3


class Residual(nn.Module):
    """Computes something between its layers and beside them."""

    def __init__(self):
        super().__init__()
        self.wide, self.short = nn.Conv2d(1, 1, 5, padding=2), nn.Conv2d(1, 1, 1)
        self.last, self.scale = nn.Conv2d(1, 1, 3), nn.Parameter(minidl.ones(1))

    def forward(self, x):
        return self.last(F.relu(self.wide(x)) + self.short(x)) * self.scale


def test_what_a_model_computes_between_its_layers():
    table = minidl.explain(Residual(), (1, 9, 9))
    assert [(row.name, row.receptive_field) for row in table.rows] == [
        ("wide", (5, 5)),
        ("short", (1, 1)),
        ("last", (7, 7)),  # of the sum, so the wider of both
        ("", (7, 7)),
    ]
    assert [row.parameters for row in table.rows] == [26, 2, 10, 1]
    assert "Receptive fields: what is computed without a layer of minidl" in str(table)
    assert "Receptive fields" not in str(image_model(nn.Conv2d(1, 1, 3), nn.ReLU()))


class Padded(nn.Conv2d):
    """A layer of the user's own, with a forward that is not its class's."""

    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class Vector(nn.Module):
    """Another, without parameters."""

    def forward(self, x):
        return x.reshape(len(x), -1)


def test_layers_that_minidl_does_not_know():
    rows = image_model(Padded(1, 2, 3), nn.ReLU(), Vector(), nn.Linear(32, 3), size=(4, 4)).rows
    assert [row.output_shape for row in rows] == [(2, 4, 4), (2, 4, 4), (32,), (3,)]
    assert [list(row.sizes) for row in rows] == [[], [], [], ["32 -> 3"]]
    assert rows[0].multiply_adds == 2 * 4 * 4 * 9
    assert rows[2].receptive_field is None


def test_receptive_fields_are_blank_behind_a_function_that_changes_the_size():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3), nn.Linear(4, 1)

        def forward(self, x):
            return self.last(F.relu(self.second(F.max_pool2d(F.relu(self.first(x)), 2))).flatten(1))

    table = minidl.explain(Functional(), (1, 10, 10))
    assert [row.receptive_field for row in table.rows] == [(3, 3), None, None]
    assert "where it changes height or width, they are left blank" in str(table)


# -- calls ----------------------------------------------------------------------------------------------------------


def test_a_layer_that_is_called_twice():
    layer = nn.Linear(3, 3)
    table = minidl.explain(nn.Sequential(layer, nn.ReLU(), layer), (3,))
    assert [(row.name, row.parameters) for row in table.rows] == [("0", 12), ("1", 0), ("0", 0)]
    assert table.parameters == 12
    assert table.multiply_adds == 18
    assert "0: parameters that an earlier row counted are not counted again." in table.notes


def test_layers_that_share_a_parameter_and_layers_that_are_not_called():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.unused = nn.Linear(3, 3), nn.Linear(3, 3, bias=False), nn.Linear(2, 1)
            self.second.weight = self.first.weight

        def forward(self, x):
            return {"scores": self.second(self.first(x)), "extra": None}

    table = minidl.explain(Tied(), (3,))
    assert [row.parameters for row in table.rows] == [12, 0]
    assert table.parameters == 15
    assert "3 parameters belong to modules that this input did not pass." in table.notes


# -- the model stays as it is ---------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Has all that a forward pass can change."""

    def __init__(self, channels=2):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(2), nn.Dropout(0.5)
        self.conv = nn.Conv2d(channels, 2, 3)
        self.norm.eval()

    def forward(self, x):
        self.seen = self.conv(self.drop(self.norm(x + minidl.rand(*x.shape))))
        return self.seen


def state_of(model):
    modes = {name: module.training for name, module in model.named_modules()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    generator = str(minidl.random.default_generator.get_state())
    arrays = {name: value.array.copy() for name, value in model.state_dict().items()}
    return modes, attributes, generator, arrays


@pytest.mark.parametrize("channels", [2, 3])  # with 3 the convolution refuses its input
def test_nothing_of_the_model_changes(channels):
    model = Noisy(channels)
    for module in (model.norm, model.drop, model):
        module.train()
    model.norm.training = False
    if channels == 2:
        model(minidl.ones(1, 2, 4, 4))  # leaves a tensor with a graph behind
        kept = model.seen
    *before, arrays = state_of(model)
    try:
        minidl.explain(model, (2, 4, 4))
    except RuntimeError:
        assert channels == 3
    *after, arrays_after = state_of(model)
    assert before == after
    assert all(np.array_equal(arrays[name], arrays_after[name]) for name in arrays)
    assert channels == 3 or model.seen is kept
    assert all(parameter.grad is None for parameter in model.parameters())
    assert minidl.is_grad_enabled()


def test_a_layer_that_refuses_its_input():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(3, 1, 3)), nn.ReLU())
    with pytest.raises(RuntimeError, match=r"^conv2d: the number of channels is 4 in input") as caught:
        minidl.explain(model, (1, 8, 8))
    (note,) = caught.value.__notes__
    assert note.startswith("explain: 1.1 (Conv2d) refused an input of shape (1, 4, 6, 6). The layers before it:")
    assert "1.0    ReLU    (4, 6, 6)" in note
    assert note.count("Conv2d") == 2  # and no row of the second
    assert "total" in note


def test_the_first_layer_refuses_its_input():
    with pytest.raises(RuntimeError) as caught:
        minidl.explain(nn.Sequential(nn.Linear(3, 1)), (4,))
    note = "explain: 0 (Linear) refused an input of shape (1, 4). It is the first layer."
    assert caught.value.__notes__ == [note]


def test_an_error_that_the_model_catches_is_none():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 1), nn.Linear(4, 1)

        def forward(self, x):
            try:
                return self.first(x)
            except RuntimeError:
                return self.second(x) if x.shape[1] == 4 else self.missing

    assert [row.name for row in minidl.explain(Careful(), (4,)).rows] == ["second"]
    with pytest.raises(AttributeError) as caught:
        minidl.explain(Careful(), (5,))
    assert "explain: the model (Careful) refused an input of shape (1, 5)" in caught.value.__notes__[0]


def test_what_is_no_model_and_no_shape():
    with pytest.raises(TypeError, match="explain: model must be a Module, not function"):
        minidl.explain(F.relu, (3,))
    with pytest.raises(TypeError, match="explain: expected a tuple or list of ints, not int"):
        minidl.explain(nn.ReLU(), 3)
