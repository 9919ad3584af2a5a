"""Embedding: a table of vectors, read by index. Names, defaults and the printed form are PyTorch's."""

from __future__ import annotations

from typing import Any

from minidl.creation import randn
from minidl.nn.functional import embedding
from minidl.nn.module import Module, Parameter
from minidl.tensor import Tensor


class Embedding(Module):
    """y = the rows of the weight that the indices name; see `functional.embedding`.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        The number of rows, K, and the length of each, D.
    padding_idx : int, optional
        A row that starts as zeros and gets no gradient.

    Attributes
    ----------
    weight : Parameter, shape (K, D)
        Initially normal, with mean 0 and variance 1.

    Examples
    --------
    >>> import minidl
    >>> Embedding(10, 3)(minidl.tensor([[1, 2, 4, 5]])).shape
    (1, 4, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        assert -num_embeddings <= (padding_idx or 0) < num_embeddings, "padding_idx must be within num_embeddings"
        weight = randn(num_embeddings, embedding_dim, device=device, dtype=dtype)
        if padding_idx is not None:
            padding_idx %= num_embeddings
            weight[padding_idx] = 0
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = Parameter(weight)

    def forward(self, input: Tensor) -> Tensor:
        """(...) to (..., D)."""
        return embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """What stands in the parentheses."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
