"""Python objects to and from records.

A record is a pickle (protocol 5), and nothing else, as long as no buffers go out of band; its first byte is 0x80 then.
With out-of-band buffers (the data of numpy arrays, `pickle.PickleBuffer`) it begins with a table instead:

    u8 1, 3 bytes 0, u32 number of buffers; u64 length of the pickle; u64 length of each buffer;
    the pickle; each buffer, at a multiple of 8 from the record's beginning

in the machine's own byte order. So the data of an array is copied once into the record, and once out of it, or not at
all where whoever receives wants a view of the record.

What an object is reduced by is what `multiprocessing.Queue` would use: copyreg's table and what was registered with
`multiprocessing.reduction.ForkingPickler`, so that connections, sockets and unclaimed ends of rings travel.

Unpickling runs what the sender says. Both ends of these records are one program: the descriptors of a Pipe or a Queue
go only to processes that it started itself.
"""

from __future__ import annotations

import copyreg
import pickle
import struct
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, TypeAlias

Piece: TypeAlias = bytes | bytearray | memoryview
"""Part of a record: contiguous bytes, not copied yet. Valid until the object that was pickled is changed."""

_WITH_BUFFERS = 1
_HEAD = struct.Struct("=B3xIQ")
_LENGTH = struct.Struct("=Q")
_ALIGN = 8
_SMALL = 4096  # bytes of a bytes object that is copied into the pickle rather than beside it
_PADDING = [bytes(n) for n in range(_ALIGN)]

_registered: dict[type, Callable[[Any], Any]] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]


class _Reducers:
    """Both tables as they are now: a type that is registered later counts from then on."""

    def __getitem__(self, kind: type) -> Callable[[Any], Any]:
        reducer = _registered.get(kind)
        return copyreg.dispatch_table[kind] if reducer is None else reducer


class _File:
    """What a pickler writes to: pieces, of which those of large bytes objects are these objects themselves."""

    def __init__(self, write: Callable[[Piece], None]) -> None:
        self.write = write


class _Encoder(NamedTuple):
    """A pickler that is used again and again: making one costs more than a small object."""

    dump: Callable[[Any], None]
    forget: Callable[[], None]
    pieces: list[Piece]
    buffers: list[pickle.PickleBuffer]


def _encoder() -> _Encoder:
    pieces: list[Piece] = []
    buffers: list[pickle.PickleBuffer] = []
    pickler = pickle.Pickler(_File(pieces.append), 5, buffer_callback=buffers.append)
    pickler.dispatch_table = _Reducers()  # type: ignore[assignment] # all that is asked of it is an item
    return _Encoder(pickler.dump, pickler.clear_memo, pieces, buffers)


# They hold nothing and are reduced by nobody: the short way is right for them.
_PLAIN = frozenset({bytes, str, int, float, bool, type(None)})

# Who pickles takes one out: another thread, or a __reduce__ that pickles something itself, gets another one.
_encoders: list[_Encoder] = []


def to_record(value: Any) -> bytes | list[Piece]:
    """Pickle an object.

    Returns:
        The record; in pieces, to be laid out in a row, where it holds out-of-band buffers or large bytes objects.

    Raises:
        pickle.PicklingError, TypeError, and what its own methods raise: it cannot be pickled.
    """
    if value.__class__ in _PLAIN and (value.__class__ is not bytes or len(value) < _SMALL):
        return pickle.dumps(value, 5)
    try:
        encoder = _encoders.pop()
    except IndexError:
        encoder = _encoder()
    encoder.dump(value)  # after an exception the encoder is not used again
    encoder.forget()  # it would keep the objects alive, and refer to them in the next pickle
    pieces = encoder.pieces
    if len(pieces) == 1 and not encoder.buffers:
        record = pieces.pop()
        _encoders.append(encoder)
        return record  # type: ignore[return-value] # a pickle of one piece is bytes
    record_in_pieces = _in_pieces(encoder)
    _encoders.append(encoder)
    return record_in_pieces


def _in_pieces(encoder: _Encoder) -> list[Piece]:
    """Take what an encoder has made; it can be used again."""
    stream, buffers = encoder.pieces.copy(), encoder.buffers.copy()
    encoder.pieces.clear()
    encoder.buffers.clear()
    return _with_buffers(stream, buffers) if buffers else stream


def _with_buffers(stream: list[Piece], buffers: list[pickle.PickleBuffer]) -> list[Piece]:
    raw = [buffer.raw() for buffer in buffers]
    length = length_of(stream)
    head = _HEAD.pack(_WITH_BUFFERS, len(raw), length)
    pieces: list[Piece] = [head + b"".join([_LENGTH.pack(view.nbytes) for view in raw]), *stream]
    at = _HEAD.size + _LENGTH.size * len(raw) + length
    for view in raw:
        if at % _ALIGN:
            pieces.append(_PADDING[-at % _ALIGN])
        pieces.append(view)
        at += -at % _ALIGN + view.nbytes
    return pieces


def length_of(pieces: Sequence[Piece]) -> int:
    """Bytes of a record that came in pieces. All of them have items of one byte."""
    return sum(map(len, pieces))


def lay_out(pieces: Sequence[Piece], target: memoryview) -> None:
    """Copy a record that came in pieces to where it begins in `target`, once."""
    at = 0
    for piece in pieces:
        end = at + len(piece)
        target[at:end] = piece
        at = end


def from_record(record: bytes | bytearray | memoryview, *, copy: bool = True) -> Any:
    """The object of a record.

    Args:
        record: as `to_record` made it, whole.
        copy: False: arrays (what went out of band) are views of `record`, read-only where it is, and keep it alive.
            True: each has memory of its own; what was read-only is read-only again.

    Raises:
        pickle.UnpicklingError, and what unpickling the object raises.
    """
    if record[0] != _WITH_BUFFERS:
        return pickle.loads(record)  # noqa: TID251 # both ends are one program
    whole = memoryview(record)
    _, count, length = _HEAD.unpack_from(whole)
    at = _HEAD.size + _LENGTH.size * count
    lengths = struct.unpack_from(f"={count}Q", whole, _HEAD.size)
    stream = whole[at : at + length]
    at += length
    buffers: list[memoryview | bytearray] = []
    for size in lengths:
        at += -at % _ALIGN
        part = whole[at : at + size]
        buffers.append(bytearray(part) if copy else part)
        at += size
    return pickle.loads(stream, buffers=buffers)  # noqa: TID251 # both ends are one program


HOT = (_encoder, _in_pieces, pickle.dumps, from_record, pickle.loads)  # noqa: TID251 # both ends are one program
"""What `to_record` and `from_record` are made of, for the calls that do the same in C (hot_objects.c)."""
