"""The orders in which llama.cpp's CPU backend adds up float products, by how wide the vectors of its build are.

A sum runs in parallel fma chains, element k in chain k % chains; what the chains hold is added in a tree. `dot` is
ggml_vec_dot_f32 (vec.cpp) with four vectors of chains, `tile` is tinyBLAS (llamafile/sgemm.cpp) with one. Elements
beyond the last multiple of the chains follow one by one; a tile has none.
"""

from typing import NamedTuple, TypeAlias

Tree: TypeAlias = int | tuple["Tree", "Tree"]

WIDTHS = (8, 16)  # float lanes with AVX2 and with AVX-512


AT_ONCE = 4  # products of what is beyond the chains that the compiler of the engine makes before it adds them


class Order(NamedTuple):
    """Of how many vectors the chains are, how wide those are, and whether the last four lanes are added by neighbours.

    Else the upper two of them are added to the lower two. at_once : so many products of what is beyond the chains are
    rounded, and added one by one; what is left is fused, as is all of it where that is 0.
    """

    vectors: int
    width: int
    neighbours: bool
    at_once: int = AT_ONCE

    @property
    def chains(self) -> int:
        """How many there are."""
        return self.vectors * self.width

    def tree(self) -> Tree:
        """The chains by number, in the order of their sum."""
        if self.chains == 1:
            return 0
        lanes: list[Tree] = [self._lane(lane) for lane in range(self.width)]
        while len(lanes) > 4:
            half = len(lanes) // 2
            lanes = [(lanes[i + half], lanes[i]) for i in range(half)]
        pairs = ((0, 1), (2, 3)) if self.neighbours else ((0, 2), (1, 3))
        first, second = ((lanes[a], lanes[b]) for a, b in pairs)
        return first, second

    def _lane(self, lane: int) -> Tree:
        """The chains of all vectors in a lane: the upper half of the vectors is added to the lower."""
        vectors: list[Tree] = [lane + self.width * vector for vector in range(self.vectors)]
        while len(vectors) > 1:
            half = len(vectors) // 2
            vectors = [(vectors[i], vectors[i + half]) for i in range(half)]
        return vectors[0]


def dot(width: int) -> Order:
    """ggml_vec_dot_f32."""
    return Order(4, width, neighbours=width == 8)


def tile(width: int) -> Order:
    """TinyBLAS."""
    return Order(1, width, neighbours=False)


ONE = Order(1, 1, neighbours=False)  # one after the other


def leaves(tree: Tree) -> list[int]:
    """The chains of a part of the tree, from left to right."""
    return [tree] if isinstance(tree, int) else [*leaves(tree[0]), *leaves(tree[1])]
