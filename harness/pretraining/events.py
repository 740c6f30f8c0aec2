"""Curves for TensorBoard without TensorBoard: scalars as an event file, which is a TFRecord of protobuf messages.

A record is its length (uint64), the masked CRC-32C of that, the message, and the masked CRC-32C of the message (all
little-endian; tensorflow/core/lib/io/record_writer.h). A message is an `Event`: 1 wall_time (double), 2 step (int64),
3 file_version (string), 5 summary; a summary holds `Value`s (1): 1 tag (string), 2 simple_value (float)
(tensorflow/core/util/event.proto, framework/summary.proto).
"""

import struct
from collections.abc import Mapping
from pathlib import Path

VERSION = b"brain.Event:2"
NAME = "events.out.tfevents.0000000000.pretraining"


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli's polynomial, bits reversed
        table.append(byte)
    return table


TABLE = _table()


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli), as in RFC 3720."""
    value = 0xFFFFFFFF
    for byte in content:
        value = value >> 8 ^ TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def masked(content: bytes) -> bytes:
    """TFRecord's checksum: rotated right by 15 bits, and a constant added."""
    value = crc32c(content)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(message: bytes) -> bytes:
    """One TFRecord."""
    length = struct.pack("<Q", len(message))
    return length + masked(length) + message + masked(message)


def event(wall_time: float, step: int, scalars: Mapping[str, float]) -> bytes:
    """An `Event` with the scalars of a step; the first of a file holds its version instead (no scalars)."""
    found = b"\x09" + struct.pack("<d", wall_time)
    if not scalars:
        return found + b"\x1a" + _sized(VERSION)
    values = b""
    for tag, value in scalars.items():
        values += b"\x0a" + _sized(b"\x0a" + _sized(tag.encode()) + b"\x15" + struct.pack("<f", value))
    return found + b"\x10" + _varint(step) + b"\x2a" + _sized(values)


class EventFile:
    """Appends scalars to `folder`; an older file of the same name is replaced."""

    def __init__(self, folder: Path, wall_time: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        self.path.write_bytes(record(event(wall_time, 0, {})))

    def add(self, wall_time: float, step: int, scalars: Mapping[str, float]) -> None:
        """One record."""
        with open(self.path, "ab") as file:
            file.write(record(event(wall_time, step, scalars)))


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _sized(content: bytes) -> bytes:
    return _varint(len(content)) + content
