"""minidl.show_graph: the tape as a table and for Graphviz."""

import re
import shutil
import subprocess

import pytest

import minidl
from minidl import nn
from minidl.autograd import record

F = nn.functional


def convnet_loss():
    """A small network's loss and its parameters by name; 256 bytes of images."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10))
    loss = F.cross_entropy(model(minidl.rand(2, 1, 8, 8)), minidl.tensor([1, 2]))
    return loss, model


def test_the_operations_of_a_convnet():
    loss, model = convnet_loss()
    graph = minidl.show_graph(loss, model.named_parameters())
    names = ["conv2d", "relu", "max_pool2d", "reshape", "linear", "cross_entropy"]
    assert [o.name for o in graph.operations] == names
    assert [o.number for o in graph.operations] == [1, 2, 3, 4, 5, 6]
    assert [o.shape for o in graph.operations] == [(2, 4, 8, 8), (2, 4, 8, 8), (2, 4, 4, 4), (2, 64), (2, 10), ()]
    assert {o.dtype for o in graph.operations} == {minidl.float32}
    inputs = ["0.weight, 0.bias", "1", "2", "3", "4, 4.weight, 4.bias", "5"]
    assert [", ".join(map(str, o.inputs)) for o in graph.operations] == inputs
    assert [o.gradient for o in graph.operations] == [
        "gx = convolve_input(gy, w)",
        "gx = 0 where y <= 0, else gy",
        "gx = put(gy)",
        "",
        "gx = gy w, gw = gy^T x, gb = sum of gy over all rows",
        "gx_c = gl (softmax(x)_c - [c = t])",
    ]
    # The images; y; an int64 index for each maximum; nothing; the features and the weight; the logits and the classes.
    assert [o.bytes for o in graph.operations] == [512, 2048, 1024, 0, 512 + 2560, 80 + 16]
    assert graph.bytes == sum(o.bytes for o in graph.operations)
    lines = str(graph).splitlines()
    assert max(map(len, lines)) <= 120
    assert [line.split()[1] for line in lines[3:9]] == names
    assert re.search(r"total +operations: 6, leaves: 4 +6,752", lines[-2])


def test_leaves_without_names_are_shown_by_their_shapes():
    loss, _ = convnet_loss()
    assert "parameter (10, 64), parameter (10,)" in str(minidl.show_graph(loss))
    x = minidl.ones(3, requires_grad=True)
    assert "tensor (3,)" in str(minidl.show_graph(x.sum()))


def test_what_is_used_twice_is_shown_and_counted_once():
    x = minidl.ones(1000, requires_grad=True)
    h = x * x
    graph = minidl.show_graph((h.exp() + h * h).sum(), {"x": x})
    assert [(o.name, [str(i) for i in o.inputs]) for o in graph.operations] == [
        ("mul", ["x"]),
        ("exp", ["1"]),
        ("mul", ["1"]),
        ("add", ["2", "3"]),
        ("sum", ["4"]),
    ]
    assert [o.bytes for o in graph.operations] == [4000, 4000, 4000, 0, 0]
    assert len(graph.leaves) == 1


def test_a_view_holds_the_whole_array():
    x = minidl.ones(10, 100, requires_grad=True)
    y = x * 2
    graph = minidl.show_graph((y[0] * y[1]).sum())
    assert graph.bytes == pytest.approx(4000, abs=8)  # and the number 2


def test_the_gradients_of_own_operations_and_of_transposed_convolutions():
    x = minidl.ones(1, 1, 2, 2, requires_grad=True)
    graph = minidl.show_graph(cube(nn.ConvTranspose2d(1, 1, 2)(x)))
    assert [o.gradient for o in graph.operations] == ["gx = convolve(gy, w)", "gx = 3 gy x^2"]


def cube(x):
    """y = x^3;  gx = 3 gy x^2. Not minidl's."""
    return record("to_the_third", x.array**3, (x, lambda gy: gy * 3 * x * x))


def test_a_leaf_and_what_has_no_graph():
    x = minidl.ones(2, 3, requires_grad=True)
    graph = minidl.show_graph(x, {"x": x})
    assert str(graph) == "no operation: x is a leaf"
    assert (graph.operations, graph.bytes) == ([], 0)
    with pytest.raises(RuntimeError, match=r"show_graph: this tensor of shape \(2, 3\) has no graph: no tensor"):
        minidl.show_graph(x.detach())
    with pytest.raises(TypeError, match="show_graph: expected a tensor, not float"):
        minidl.show_graph(1.0)


def test_a_graph_that_a_backward_pass_has_freed():
    loss, _ = convnet_loss()
    loss.backward(retain_graph=True)
    before = str(minidl.show_graph(loss))
    assert "cross_entropy" in before
    loss.backward()
    with pytest.raises(RuntimeError, match=r"a backward pass has freed the graph of \w+: call show_graph before back"):
        minidl.show_graph(loss)


# -- DOT ------------------------------------------------------------------------------------------------------------

STRING = r'"(?:[^"\\]|\\["\\n])*"'
NODE = re.compile(rf"  (n\d+) \[shape=(box|ellipse), label=({STRING})\]")
EDGE = re.compile(r"  (n\d+) -> (n\d+)")


def parsed(dot):
    """The labels of the nodes, their shapes, and the edges; no other line is there."""
    first, *lines, last = dot.splitlines()
    assert (first, last) == ("digraph {", "}")
    nodes = {m[1]: (m[3], m[2]) for m in map(NODE.fullmatch, lines) if m}
    edges = [m.groups() for m in map(EDGE.fullmatch, lines) if m]
    assert len(nodes) + len(edges) == len(lines)
    assert {end for edge in edges for end in edge} <= set(nodes)
    return nodes, edges


def test_dot_has_all_operations_leaves_and_edges():
    loss, model = convnet_loss()
    graph = minidl.show_graph(loss, model.named_parameters())
    nodes, edges = parsed(graph.dot())
    assert [shape for _, shape in nodes.values()] == ["ellipse"] * 4 + ["box"] * 6
    assert nodes["n0"][0] == r'"0.weight\nfloat32 (4, 1, 3, 3)"'
    pairs = [(nodes[a][0].split("\\n")[0][1:], nodes[b][0].split("\\n")[0][1:]) for a, b in edges]
    assert ("0.weight", "conv2d") in pairs
    assert ("reshape", "linear") in pairs
    assert len(pairs) == 9


def test_dot_quotes_names():
    x = minidl.ones(2, requires_grad=True)
    nodes, edges = parsed(minidl.show_graph(x.sum(), {'a "b" \\': x}).dot())
    assert nodes["n0"][0] == r'"a \"b\" \\\nfloat32 (2,)"'
    assert len(edges) == 1


@pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")
def test_graphviz_draws_it():
    loss, _ = convnet_loss()
    drawn = subprocess.run(["dot", "-Tsvg"], input=minidl.show_graph(loss).dot(), capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.count('class="node"') == 10
