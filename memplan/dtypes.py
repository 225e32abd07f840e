"""The dtypes that training runs use, with c10's promotion order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One torch dtype.

    Attributes:
        name: torch's name.
        itemsize: Bytes per element. [bytes]
        rank: Place in type promotion; the two 16-bit floats share one.

    Source:
        pytorch/pytorch v2.14.1 ``c10/core/ScalarType.cpp`` ``promoteTypes``.
    """

    name: str
    itemsize: int
    rank: int

    def __repr__(self) -> str:
        return self.name


BOOL = DType("bool", 1, 0)
UINT8 = DType("uint8", 1, 1)
INT8 = DType("int8", 1, 1)
FP8 = DType("float8_e4m3fn", 1, 1)  # it is stored, and promoted with nothing
INT32 = DType("int32", 4, 2)
INT64 = DType("int64", 8, 3)
BF16 = DType("bfloat16", 2, 4)
FP16 = DType("float16", 2, 4)
FP32 = DType("float32", 4, 5)
FP64 = DType("float64", 8, 6)

DTYPES = {d.name: d for d in (BOOL, UINT8, INT8, FP8, INT32, INT64, BF16, FP16, FP32, FP64)}


def promote(a: DType, b: DType) -> DType:
    """The dtype of an operation on two tensors with dimensions; the 16-bit floats meet in fp32."""
    if a is b or a.rank > b.rank:
        return a
    return b if b.rank > a.rank else FP32
