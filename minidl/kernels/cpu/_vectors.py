"""Vector instructions (SIMD) in LLVM's language, for the inner loops that Numba cannot express.

A mask is a vector of bits; a lane whose bit is 0 reads 0 and writes nothing. All arguments are LLVM values.
"""

import functools

import llvmlite.binding as llvm  # type: ignore[import-untyped]
from llvmlite import ir
from numba.core import cgutils

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
BYTES = {ir.FloatType(): 4, ir.DoubleType(): 8, I64: 8}  # of an element
VECTOR_BYTES = 64 if llvm.get_host_cpu_features().get("avx512f") else 32  # of a vector on this machine


class Vectors:
    """Instructions on vectors of so many lanes of one element type."""

    def __init__(self, builder, element, lanes: int) -> None:
        self.builder, self.element, self.lanes = builder, element, lanes
        self.kind, self.bits = ir.VectorType(element, lanes), ir.VectorType(I1, lanes)
        self.zero = ir.Constant(self.kind, None)
        self.size = BYTES[element]
        self.name = f"v{lanes}{'i' if element == I64 else 'f'}{8 * self.size}"

    def at(self, base, *offsets):
        """The address `base` plus offsets, in elements."""
        return functools.reduce(lambda address, offset: self.builder.gep(address, [offset]), offsets, base)

    def load(self, mask, base, *offsets):
        """Load the vector there; without a mask all of it."""
        if mask is None:
            return self.builder.load(self._address(base, offsets), align=self.size)
        arguments = [self._address(base, offsets), I32(self.size), mask, self.zero]
        return self._call(f"masked.load.{self.name}.p0", self.kind, *arguments)

    def store(self, vector, mask, base, *offsets):
        """Store the vector there; without a mask all of it."""
        if mask is None:
            self.builder.store(vector, self._address(base, offsets), align=self.size)
            return
        arguments = [vector, self._address(base, offsets), I32(self.size), mask]
        self._call(f"masked.store.{self.name}.p0", ir.VoidType(), *arguments)

    def multiply_add(self, a, b, c):
        """a * b + c: a fused multiply-add where the machine has it."""
        return self._call(f"fmuladd.{self.name}", self.kind, a, b, c)

    def chosen(self, vector, *lanes: int):
        """A shuffle: these lanes of a vector, repeated to fill a vector."""
        indices = [lanes[i % len(lanes)] for i in range(self.lanes)]
        return self.builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, self.lanes), indices))

    def splat(self, value):
        """A broadcast: a value in every lane."""
        one = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        return self.chosen(self.builder.insert_element(one, value, I32(0)), 0)

    def below(self, limit):
        """The mask of the lanes with a number below `limit`."""
        numbers = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self.splat(limit))

    def _address(self, base, offsets):
        return self.builder.bitcast(self.at(base, *offsets), self.kind.as_pointer())

    def _call(self, name: str, result, *arguments):
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}"), arguments)
