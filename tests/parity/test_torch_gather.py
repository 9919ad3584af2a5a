"""Gathering, scattering, sorting, rearranging, creation against PyTorch's: values, gradients, types of errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.with_torch import BOTH, attempt, same
from tests.parity.test_torch_ops import (
    DIMMED,
    DTYPE,
    FLAG,
    FULL,
    SEED,
    compare_two_gradients,
    dim,
    dims,
    with_args,
)

SQUARE = st.sampled_from([(2, 2), (3, 2), (2, 3, 2), (1, 3), (0, 2)])
STEP = st.integers(-2, 2)


def places(s):
    """Indices of dimension 0, some of them twice."""
    return st.lists(st.integers(0, max(s[0] - 1, 0)), min_size=1, max_size=4)


def indices(m, like, rows, d=0):
    """A tensor of indices of dimension d, with the sizes of `like` in the others."""
    sizes = list(like.shape)
    sizes[d] = len(rows)
    return m.tensor(
        np.broadcast_to(np.array(rows).reshape([-1 if k == d else 1 for k in range(like.ndim)]), sizes).copy()
    )


def untied(m, x):
    """Without equal values, of which PyTorch may choose any."""
    return x + m.arange(x.numel()).reshape(tuple(x.shape)) / 100


SOME = FULL.filter(len)
OPS = {  # name: (function of m, tensors, arguments; strategy of (shapes, arguments))
    "gather": (lambda m, a, i: a.gather(0, indices(m, a, i)), with_args(places, shape=SOME)),
    "scatter_add": (
        lambda m, a, i: m.ones(*a.shape, dtype=a.dtype).scatter_add(0, indices(m, a, i) * 0, indices(m, a, i) * a[:1]),
        with_args(places, shape=SOME),
    ),
    "scatter": (lambda m, a, i: a.scatter(0, indices(m, a, i[:1]), a[-1:] * 2), with_args(places, shape=SOME)),
    "scatter number": (lambda m, a, i: a.scatter(0, indices(m, a, i), 3.0), with_args(places, shape=SOME)),
    "index_select": (lambda m, a, i: a.index_select(0, m.tensor(i)), with_args(places, shape=SOME)),
    "index_add": (
        lambda m, a, i: (a * 1).index_add_(0, m.tensor(i), a[m.tensor(i)] * 2, alpha=3),
        with_args(places, shape=SOME),
    ),
    "masked_fill": (lambda m, a: a.masked_fill(a > 0, 2), with_args()),
    "masked_select": (lambda m, a: a.masked_select(a > 0), with_args()),
    "sort": (lambda m, a, d, b: m.sort(a, dim=d, descending=b, stable=True), with_args(dim, FLAG)),
    "topk": (lambda m, a, d: untied(m, a).topk(1, d).values, with_args(dim, shape=FULL)),
    "flip": (lambda m, a, d: a.flip(d), with_args(dims).filter(lambda c: isinstance(c[1][0], tuple))),
    "roll": (lambda m, a, n, d: a.roll(n, d), with_args(STEP, dim, shape=DIMMED)),
    "roll all": (lambda m, a, n: a.roll(n), with_args(STEP)),
    "tril": (lambda m, a, k: a.tril(k), with_args(STEP, shape=SQUARE)),
    "triu": (lambda m, a, k: a.triu(k), with_args(STEP, shape=SQUARE)),
    "tile": (lambda m, a, n: a.tile(n), with_args(st.lists(st.integers(0, 2), max_size=4).map(tuple))),
    "repeat_interleave": (lambda m, a, n, d: a.repeat_interleave(n, d), with_args(st.integers(0, 2), dim, shape=SOME)),
    "hstack": (lambda m, a: m.hstack((a, a * 2)), with_args()),
}


@pytest.mark.drawn("operations")
@pytest.mark.parametrize("name", OPS)
@settings(max_examples=22)
@given(data=st.data(), dtype=DTYPE, seed=SEED)
def test_values_and_two_gradients(name, data, dtype, seed):
    function, cases = OPS[name]
    compare_two_gradients(name, function, *data.draw(cases), dtype, seed)


# -- expressions in m, x (3, 4), r (2, 3, 4), v (3), s (0-d), n (NaN, inf), e (empty), i j k l (ints), b t (bools) -----


def names(m):
    x = m.arange(12.0).reshape(3, 4)
    return {
        "m": m, "F": m.nn.functional, "nn": m.nn, "x": x, "t": x > 4, "r": m.arange(24.0).reshape(2, 3, 4),
        "i": m.tensor([[0, 5]]), "j": m.tensor([[2, 0, 1, 1], [0, 0, 2, 2]]), "k": m.tensor([2, 0]),
        "n": m.tensor([[3.0, float("nan"), 1.0, 1.0], [2.0, -1.0, float("inf"), 2.0]]), "s": m.tensor(3.0),
        "v": m.tensor([3.0, 1.0, 2.0]), "l": m.tensor([4, 1, 1, 0]), "b": m.tensor([True, False, True]),
        "e": m.zeros(0, 3),
    }  # fmt: skip


EXPRESSIONS = (
    """
x.gather(0,i); x.gather(0,-i); x.gather(0,m.tensor([0])); x.gather(0,m.tensor([[0.]]));
x.gather(0,m.tensor([[0]],dtype=m.int32)); x.gather(0,m.tensor([[0]],dtype=m.uint8));
x.gather(0,m.tensor([[0,1,2,0,1]])); x.scatter(0,i,1.); x.scatter(0,m.tensor([[0,1]]),m.ones(1,1));
x.scatter(0,m.tensor([[0,1]]),m.ones(1,2).double()); x.scatter(0,m.tensor([[0,1]]),2, reduce="add");
x.scatter(0,m.tensor([[0,1]]),2, reduce="mult"); x.scatter_add(0,m.tensor([[0,1]]),m.ones(1,2).double());
x.index_select(0,m.tensor([5])); x.index_select(0,m.tensor([-1])); x.index_select(0,m.tensor([1.]));
x.index_select(0,m.tensor(1)); x.index_select(0,m.tensor([[1]])); x.index_add(0,m.tensor([5]),x[:1]);
x.index_add(0,m.tensor([1]),x[:1].double()); x.index_add(0,m.tensor([1]),x[:2]); x.masked_fill(x>2, m.tensor(3.));
x.masked_fill(x>2, m.tensor([3.])); x.masked_fill(x, 3.); x.long().masked_fill(x>2, 3.5); x.masked_select(x>2);
x.masked_select(m.tensor([True,False,False,True])); x.masked_select(x); x.topk(7); x.topk(2,5); x.topk(2.);
m.tensor(3.).sort(); m.tensor(3.).topk(1); m.tensor(3.).nonzero(); m.tensor(3.).nonzero(as_tuple=True); m.where(x>9);
m.where(x); x.flip(0,0); x.flip(5); x.flip(()); x.roll(1); x.roll((1,2)); x.roll((1,2),(0,)); x.roll(1,0);
x.roll((1,2),(0,0)); m.ones(3).tril(); 3 in x; x in x; "a" in x; None in x; m.ones(3) in x;   m.unique(x);
x.long().sort(stable=True); m.sort(x,descending=True); m.sort(x,0,True); m.sort(x,stable=True,dim=0);
m.argsort(x,0,True); m.argsort(x,stable=True); x.gather(0,j); x.gather(-2,j[:,:2]); m.gather(x,1,j);
s.gather(0,m.tensor(0)); s.gather(0,m.tensor([0])); v.gather(0,m.tensor(1)); x.gather(0,m.zeros(0,4,dtype=m.int64));
x.scatter(0,j,x[:2]*10); x.scatter(1,j,x[:2]*10); x.scatter(0,j,9.); x.clone().scatter_(0,j,value=9.);
x.clone().scatter_(0,j,5.,reduce='add'); x.clone().scatter_(1,j[:1],m.ones(3,4),reduce='add');
x.scatter_add(0,j,m.ones(2,4)); x.clone().scatter_add_(0,j,m.ones(3,4)); m.scatter_add(x,1,j[:,:2],m.ones(2,2));
m.scatter(x,0,j,m.ones(2,4)); m.scatter(x,0,j,src=m.ones(2,4)); m.scatter(x,0,j,value=3); x.index_select(1,k);
x.index_select(-1,m.tensor([0,0])); r.index_select(2,k); m.index_select(x,0,k); s.index_select(0,m.tensor([0]));
x.index_add(0,k,m.ones(2,4),alpha=2); x.clone().index_add_(1,k,m.ones(3,2)); x.masked_fill(t,-1);
x.clone().masked_fill_(t,float('-inf')); x.masked_fill(t[0],2.); m.masked_fill(x,t,2); l.masked_fill(l>1,0);
x.masked_select(t); m.masked_select(x,t[1]); x.nonzero(); m.nonzero(x); m.nonzero(t,as_tuple=True); m.where(t);
n.sort(); n.sort(0); n.sort(descending=True); n.sort(dim=0,descending=True); m.sort(n,1)[1]; n.argsort();
n.argsort(descending=True,dim=0,stable=True); m.argsort(v); v.topk(2); v.topk(2,largest=False); x.topk(2,dim=0);
m.topk(x,k=1,dim=1); v.topk(0); l.unique(); m.unique(l,return_inverse=True,return_counts=True); m.unique(x,dim=0);
m.unique(x,return_counts=True); m.unique(x,True,True);
m.unique(m.tensor([[1,2],[1,2]]),dim=0,return_inverse=True,return_counts=True); n.unique(); b.unique(); e.unique();
x.flip(0); x.flip(0,1); x.flip([0,-1]); m.flip(x,(1,)); m.flip(x,dims=(1,)); x.roll((1,-2),(0,1));
m.roll(x,shifts=1,dims=1); x.roll(5,0); s.roll(1); x.tril(); x.triu(1); m.tril(r,-1); m.triu(x,diagonal=-1); t.tril();
x.clone().tril_(); x.narrow(0,1,2); x.narrow(1,-2,1); m.narrow(x,0,m.tensor(1),1); x.narrow(0,3,0); x.narrow(0,2,2);
x.narrow(0,4,0); x.narrow(0,-4,0); x.select(0,1); m.select(x,1,-1); x.select(0,3); x.ravel(); x.T.ravel(); m.ravel(x);
x.tile(2); x.tile(2,1); x.tile((2,1,1)); m.tile(v,(2,2)); x.repeat_interleave(2); x.repeat_interleave(2,0);
x.repeat_interleave(m.tensor([1,0,2]),0); x.repeat_interleave(m.tensor([1,2]),0); m.repeat_interleave(x,2,dim=-1);
m.repeat_interleave(l); m.repeat_interleave(v,m.tensor([2])); s.repeat_interleave(3); m.hstack([v,v]); m.hstack((x,x));
m.hstack((s,v)); m.vstack((v,v)); m.vstack((x,x)); m.meshgrid(v,v); m.meshgrid(v,indexing='xy');
m.meshgrid(v,indexing='xyz'); x.mT; r.mT; x.H; x.clone().unsqueeze_(0); x.clone().t_();
x.clone().transpose_(0,1).contiguous(); x[None].clone().squeeze_(); x[None].clone().squeeze_(0); (x*1).is_leaf; 99 in x;
m.tensor(4) in l; x.new_zeros(2,3); x.double().new_ones((2,)); l.new_full((2,),3); l.new_tensor([1.5,2]);
x.new_tensor([1,2]); x.new_empty(2,0); x.new_zeros(2,dtype=m.int64); m.empty_like(e);
m.zeros_like(x,memory_format=m.preserve_format); m.ones_like(l); m.full_like(x,3); m.full_like(l,3,dtype=m.float32);
m.zeros_like(r[None],memory_format=m.channels_last).is_contiguous();
m.zeros_like(r[None],memory_format=m.channels_last).is_contiguous(memory_format=m.channels_last);
r[None].contiguous(memory_format=m.channels_last); r.clone(memory_format=m.channels_last); x.is_contiguous();
x.T.is_contiguous(); x.to("cpu",m.float64,False); x.to(m.float64,non_blocking=True); x.to(x.double(),True);
m.linspace(m.tensor(0.0), m.tensor(1.0), 4, dtype=m.float64); m.linspace(-2, 1, 7, dtype=m.int64); m.linspace(0, 1,
steps=5); m.linspace(0, 1, 5.); m.arange(0, 3.1, dtype=m.int64); m.arange(0.5, 5, 1.5, dtype=m.int64);
m.arange(m.tensor(3)); m.arange(5, dtype=m.float16); m.eye(3, dtype=m.bool); m.full((2,), True);
m.bernoulli(m.zeros(3)); m.bernoulli(m.ones(3)); m.bernoulli(m.ones(3)*2); m.bernoulli(m.ones(3),0.);
m.ones(3).bernoulli(p=0.); m.zeros(3,dtype=m.int64).bernoulli_(1.); m.zeros(3).bernoulli_(m.ones(3));
m.zeros(3).bernoulli_(2.); m.multinomial(m.tensor([0,3.,0]),4,replacement=True); m.multinomial(m.tensor([0,3.,0]),4);
m.multinomial(m.tensor([0,3.,0]),1); m.multinomial(m.tensor([[0,3.,0],[0,0,1]]),1);
m.tensor([[0,3.,0],[0,0,1]]).multinomial(2,True); m.multinomial(m.tensor([0,-3.,0]),1);
m.multinomial(m.tensor([0,0.]),1); m.multinomial(l,1); m.multinomial(r,1); m.multinomial(m.ones(2,3),0);
m.normal(m.tensor([1.,2]),0.); m.normal(m.tensor([1.,2]),m.tensor([0.])); m.normal(2.,m.zeros(3)); m.normal(2.,0.,(2,));
m.normal(2.,m.zeros(3)-1); m.normal(2.,-1.,(2,)); m.normal(2.,1.); m.normal(2.,0.,size=(2,),dtype=m.float64); m.rand(2,
generator=m.Generator()).shape; F.embedding(j,m.arange(12.).reshape(4,3)); F.embedding(m.tensor(2),x);
F.embedding(j,x,padding_idx=0); F.embedding(i,x); F.embedding(-i,x); F.embedding(x,x); nn.Embedding(4,3);
nn.Embedding(4,3,padding_idx=-1); nn.Embedding(4,3,padding_idx=1).weight[1]; nn.Embedding(4,3,padding_idx=7);
m.meshgrid(v, v * 2, indexing="xy"); m.meshgrid([v, v], indexing="ij"); m.meshgrid(v, v, s, indexing="xy")
""".replace("\n", " ")
    .strip()
    .split("; ")
)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression(expression):
    ours, theirs = (attempt(lambda m: eval(expression, names(m)), m) for m in BOTH)
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), (ours, theirs)
    elif isinstance(ours, Exception):
        raise AssertionError(f"{expression}: {ours!r}") from ours
    else:
        same(ours, theirs)
