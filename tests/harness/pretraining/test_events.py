"""TensorBoard's file, read back by a parser of TFRecord and protobuf written here."""

import struct
from pathlib import Path
from typing import Any

from harness.pretraining.events import EventFile, crc32c, masked


def records(content: bytes) -> list[bytes]:
    """The messages of a TFRecord file, checksums checked."""
    found = []
    while content:
        length = content[:8]
        (size,) = struct.unpack("<Q", length)
        assert content[8:12] == masked(length)
        message = content[12 : 12 + size]
        assert content[12 + size : 16 + size] == masked(message)
        found.append(message)
        content = content[16 + size :]
    return found


def parse(message: bytes) -> dict[int, list[Any]]:
    """Fields of a protobuf message by number: ints of varints, bytes of everything else."""
    found: dict[int, list[Any]] = {}

    def varint() -> int:
        nonlocal message
        value = shift = 0
        while True:
            byte, message = message[0], message[1:]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while message:
        key = varint()
        if key & 7 == 0:
            value: Any = varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            value, message = message[:size], message[size:]
        found.setdefault(key >> 3, []).append(value)
    return found


def test_the_checksum_is_that_of_rfc_3720():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_scalars_come_back_with_their_step_and_time(tmp_path: Path):
    file = EventFile(tmp_path, 10.0)
    file.add(11.5, 300, {"loss": -0.25, "probe/accuracy": 0.5})
    version, line = map(parse, records(file.path.read_bytes()))
    assert version[3] == [b"brain.Event:2"]
    assert struct.unpack("<d", line[1][0]) == (11.5,)
    assert line[2] == [300]
    values = [parse(value) for value in parse(line[5][0])[1]]
    assert {value[1][0].decode(): struct.unpack("<f", value[2][0])[0] for value in values} == {
        "loss": -0.25,
        "probe/accuracy": 0.5,
    }


def test_the_file_has_the_name_that_tensorboard_looks_for(tmp_path: Path):
    assert "tfevents" in EventFile(tmp_path, 0.0).path.name
