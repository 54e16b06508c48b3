"""What a compiled program does, as the text of XLA's schedule for a TPU tells.

An array is in the chip's memory (HBM) unless its layout names another one, such as S(1), the small one beside
the arithmetic units, which the compiler fills ahead of time.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)[a-z\d]*\[([\d,]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%(\S+) = (\S.*?) ([a-z][a-z\d-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%(\S+) .*\{$")
_CALLED = r"(?:calls|to_apply|true_computation|false_computation|body)=%([^\s,]+)"
_MOVE_NOTHING = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all")
_NAME_MEMORY = ('"ConcatBitcast"', '"AllocateBuffer"')  # custom calls.


class Work(NamedTuple):
    """What a program does each time that it runs, on one chip."""

    hbm_bytes: int  # read from HBM and written to it.
    cycles: int  # that the compiler estimates.
    collectives: Counter[str]  # how many of each kind.
    sent: Counter[str]  # bytes of each kind, of what they take or give, whichever is more.

    def plus(self, other: "Work") -> "Work":
        """Returns the work of both."""
        return Work(
            self.hbm_bytes + other.hbm_bytes,
            self.cycles + other.cycles,
            self.collectives + other.collectives,
            self.sent + other.sent,
        )

    def times(self, turns: int) -> "Work":
        """Returns the work of a loop."""
        collectives, sent = (
            Counter({kind: turns * n for kind, n in of.items()}) for of in (self.collectives, self.sent)
        )
        return Work(turns * self.hbm_bytes, turns * self.cycles, collectives, sent)


class Array(NamedTuple):
    """An array that an operation gives."""

    size: int  # bytes, without padding.
    in_hbm: bool


class Instruction(NamedTuple):
    """An operation."""

    is_root: bool  # of its computation.
    name: str
    shape: str
    opcode: str
    arguments: str
    attributes: str

    @property
    def operands(self) -> list[str]:
        """Returns the names of what it takes."""
        return re.findall(r"%([^\s,]+)", self.arguments)

    @property
    def arrays(self) -> list[Array]:
        """Returns what it gives."""
        return list(_arrays(self.shape))

    @property
    def called(self) -> list[str]:
        """Returns the computations that it runs, but for those of single numbers."""
        if self.opcode in ("reduce", "all-reduce", "all-reduce-start", "reduce-scatter", "scatter", "sort"):
            return []
        branches = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        return re.findall(r"%([^\s,]+)", branches[1]) if branches else re.findall(_CALLED, self.attributes)


Computation = dict[str, Instruction]


def _arrays(shape: str) -> Iterator[Array]:
    for letters, digits, dimensions, layout in _ARRAY.findall(shape):
        size = int(digits or (8 if letters == "pred" else 0)) // 8
        for dimension in filter(None, dimensions.split(",")):
            size *= int(dimension)
        yield Array(size, "S(" not in layout)


class Program:
    """The text of a compiled program, taken apart."""

    def __init__(self, text: str) -> None:
        """Reads the text, as `compiled.as_text()` returns it."""
        self.computations: dict[str, Computation] = {}
        self.entry = name = ""
        for line in text.splitlines():
            if begins := _COMPUTATION.match(line):
                name = begins[2]
                self.computations[name] = {}
                self.entry = name if begins[1] else self.entry
            elif (found := _INSTRUCTION.match(line)) and name:
                root, one, shape, opcode, rest = found.groups()
                arguments, _, attributes = rest.partition(")")
                made = Instruction(bool(root), one, shape, opcode, arguments, attributes)
                self.computations[name][one] = made

    @property
    def work(self) -> Work:
        """What the program does, with loops as often as they turn.

        Of a conditional it is the branch with the fewest cycles, but the collectives of all branches.
        """
        return self._work(self.entry)

    def _work(self, name: str) -> Work:
        total, around = Work(0, 0, Counter(), Counter()), self.computations[name]
        for one in around.values():
            total = total.plus(self._work_of(around, one))
        return total

    def _work_of(self, around: Computation, one: Instruction) -> Work:
        called = [self._work(name) for name in one.called]
        collectives = sum((work.collectives for work in called), Counter[str]())
        sent = sum((work.sent for work in called), Counter[str]())
        if one.opcode == "while":
            return called[0].times(self._turns(one))
        if one.opcode == "call":
            return called[0]
        if one.opcode == "conditional":
            cheapest = min(called, key=lambda work: work.cycles)
            return cheapest._replace(collectives=collectives, sent=sent)
        taken = sum(array.size for name in one.operands for array in around[name].arrays)
        given = sum(array.size for array in one.arrays)
        kind = one.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            given -= taken if kind != one.opcode else 0  # what starts one gives what it takes, too.
            collectives, sent = collectives + Counter([kind]), sent + Counter({kind: max(taken, given)})
        cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', one.attributes)))
        return Work(self._moved(around, one), cycles, collectives, sent)

    def _turns(self, loop: Instruction) -> int:
        """Returns how often a loop turns, whose counter rises from 0 to a number by 1."""
        (name,) = re.findall(r"condition=%([^\s,]+)", loop.attributes)
        constants = [one for one in self.computations[name].values() if one.opcode == "constant"]
        return max((int(one.arguments) for one in constants if one.arguments.isdecimal()), default=1)

    def _moved(self, around: Computation, one: Instruction) -> int:
        """Returns the bytes that an operation reads from HBM and writes to it."""
        if one.opcode in _MOVE_NOTHING or one.opcode.endswith("-done"):
            return 0
        if any(target in one.attributes for target in _NAME_MEMORY):
            return 0
        if one.opcode.endswith("-start"):  # it gives what it takes, too, and a number.
            whole = [array for array in one.arrays if array.size > 4]
            if one.opcode.removesuffix("-start") in COLLECTIVES:
                return sum(array.size for array in whole if array.in_hbm)
            # A copy, maybe of a slice.
            least = min((array.size for array in whole), default=0)
            return least * sum(array.in_hbm for array in whole)
        read = sum(
            min(sum(a.size for a in around[name].arrays if a.in_hbm), self._needed(one, index))
            for index, name in enumerate(one.operands)
        )
        return read + self._written(one)

    def _needed(self, one: Instruction, index: int) -> int:
        """Returns the most bytes that an operation can read of an operand: those of its slices, if any."""
        given = sum(array.size for array in one.arrays)
        if one.opcode in ("slice", "dynamic-slice", "gather"):
            return given
        if one.opcode == "dynamic-update-slice":
            return 0 if index == 0 else given
        if one.opcode != "fusion":
            return 1 << 62
        inside = self.computations[one.called[0]]
        (name,) = (i.name for i in inside.values() if i.opcode == "parameter" and i.arguments == str(index))
        return self._needed_inside(inside, name)

    def _needed_inside(self, inside: Computation, name: str) -> int:
        needed = 0
        for user in inside.values():
            for index, operand in enumerate(user.operands):
                if operand == name:
                    passes = user.opcode in ("bitcast", "get-tuple-element")
                    needed += self._needed_inside(inside, user.name) if passes else self._needed(user, index)
        return needed

    def _written(self, one: Instruction) -> int:
        if one.opcode == "fusion":
            inside = self.computations[one.called[0]]
            (root,) = (i for i in inside.values() if i.is_root)
            if root.opcode == "dynamic-update-slice" and one.arrays[0].in_hbm:
                return sum(array.size for array in inside[root.operands[1]].arrays)
        return sum(array.size for array in one.arrays if array.in_hbm)
