"""A range coder: symbols with integer frequencies to bytes and back (Martin 1979).

A symbol takes the part [start, start + size) of `total` of the current interval of 64 bits. All
arithmetic is on integers, so the bytes depend on nothing but the frequencies. An interval is never
narrower than 2^56, so for totals up to 2^31 a symbol costs log2(total / size) bits and at most
2^-24 bits more.
"""

BITS = 64
WHOLE = 1 << BITS
NARROW = 1 << (BITS - 8)  # an interval below it is widened by a byte
MOST = 1 << 31  # the largest total


class Encoder:
    """Adds symbols one by one; `finish` gives the bytes."""

    def __init__(self):
        self._low, self._width, self._out = 0, WHOLE, bytearray()

    def add(self, start: int, size: int, total: int) -> None:
        """Adds a symbol of frequency size > 0 that has `start` before it, of `total` up to MOST."""
        part = self._width // total
        self._low += start * part
        self._width = size * part
        if self._low >= WHOLE:
            self._low -= WHOLE
            self._carry()
        while self._width < NARROW:
            self._out.append(self._low >> (BITS - 8))
            self._low = (self._low << 8) & (WHOLE - 1)
            self._width <<= 8

    def _carry(self) -> None:
        """Adds 1 to the last byte, and to the one before where that overflows."""
        last = len(self._out) - 1
        while self._out[last] == 255:
            self._out[last] = 0
            last -= 1
        self._out[last] += 1

    def finish(self) -> bytes:
        """The bytes of all symbols. One byte more than there are singles out the interval; zeros at
        the end are left out, because the decoder reads zeros after the end."""
        value = -(-self._low // NARROW) * NARROW
        if value >= WHOLE:
            self._carry()
        self._out.append((value >> (BITS - 8)) & 255)
        return bytes(self._out).rstrip(b"\0")


class Decoder:
    """Reads the symbols of an Encoder in the same order: `target`, then `take`."""

    def __init__(self, content: bytes):
        self._bytes, self._at = content, BITS // 8
        self._value = int.from_bytes(content[: self._at].ljust(self._at, b"\0"))
        self._width, self._part = WHOLE, 0

    def target(self, total: int) -> int:
        """A number below `total`: the symbol is the one with start <= number < start + size."""
        self._part = self._width // total
        return min(self._value // self._part, total - 1)

    def take(self, start: int, size: int) -> None:
        """Removes the symbol that `target` has pointed at."""
        self._value -= start * self._part
        self._width = size * self._part
        while self._width < NARROW:
            byte = self._bytes[self._at] if self._at < len(self._bytes) else 0
            self._value = (self._value << 8) | byte
            self._width <<= 8
            self._at += 1
