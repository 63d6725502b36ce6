"""Offline runs of wandb as they lie on disk: their records, and the files that these name.

A .wandb file is a log as LevelDB has it (https://github.com/google/leveldb/blob/main/doc/log_format.md) behind seven
bytes of wandb's own, with zlib's CRC-32; a record in it is a protocol buffer that wandb defines.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedlab import readers
from embedlab.errors import ConfigError, counted
from embedlab.files import write

START = b":W&B" + struct.pack("<HB", 0xBEE1, 0)  # a name, a magic number, the version of the format
BLOCK = 32 * 1024
HEAD = struct.Struct("<IHB")  # of a piece: its checksum, its length, whether it is a whole record or which part of one
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records_in(log: bytes) -> Iterator[bytes]:
    """The records of a log; of one that was cut short, those that are whole.

    >>> long = bytes(70_000)
    >>> list(records_in(log_of([b"one", long, b""]))) == [b"one", long, b""]
    True
    >>> list(records_in(log_of([b"one", long])[:-1]))
    [b'one']
    """
    if not log.startswith(START):
        return
    place, parts = len(START), list[bytes]()
    while place + HEAD.size <= len(log):
        if (left := BLOCK - place % BLOCK) < HEAD.size:  # the end of a block is filled with zeros
            place += left
            continue
        checksum, length, kind = HEAD.unpack_from(log, place)
        piece = log[place + HEAD.size : place + HEAD.size + length]
        if len(piece) < length or kind not in (WHOLE, FIRST, MIDDLE, LAST) or checksum != _checksum(kind, piece):
            return
        place += HEAD.size + length
        parts = [piece] if kind in (WHOLE, FIRST) else [*parts, piece]
        if kind in (WHOLE, LAST):
            yield b"".join(parts)


def log_of(records: Iterable[bytes]) -> bytes:
    """Records as a log."""
    log = bytearray(START)
    for record in records:
        begun, rest = False, record
        while True:
            left = BLOCK - len(log) % BLOCK
            if left < HEAD.size:
                log += bytes(left)
                left = BLOCK
            piece, rest = rest[: left - HEAD.size], rest[left - HEAD.size :]
            kind = {(0, 0): WHOLE, (0, 1): FIRST, (1, 1): MIDDLE, (1, 0): LAST}[begun, bool(rest)]
            log += HEAD.pack(_checksum(kind, piece), len(piece), kind) + piece
            if not rest:
                break
            begun = True
    return bytes(log)


def _checksum(kind: int, piece: bytes) -> int:
    return zlib.crc32(piece, zlib.crc32(bytes([kind])))


@dataclass(frozen=True)
class RunFacts:
    """What a run of wandb says of itself."""

    name: str
    project: str
    entity: str | None = None
    group: str | None = None
    kind: str | None = None
    notes: str | None = None


def facts_of(run: Path) -> RunFacts | None:
    """What a run in a folder of wandb's says of itself; None of one that was cut short before it did."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in run.glob("run-*.wandb"):
        for raw in records_in(readers.read_bytes(file)):
            record = Record.FromString(raw)
            if record.HasField("run"):
                told = record.run
                optional = (told.entity, told.run_group, told.job_type, told.notes)
                return RunFacts(told.display_name, told.project, *(text or None for text in optional))
    return None


def bring_home(run: Path) -> int:
    """Let the records of an offline run name its files where they are now; how many had to be changed.

    wandb writes down whole paths, which are wrong once the folder was moved or copied. ConfigError where a file is not
    with the run, as with one that was made by a wandb that kept them in somebody's home.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    changed, missing = 0, list[str]()
    (file,) = run.glob("run-*.wandb")
    records = list(records_in(file.read_bytes()))
    for n, raw in enumerate(records):
        if b"artifact" not in raw and b"staging" not in raw:
            continue
        record = Record.FromString(raw)
        before = changed
        for entry in record.artifact.manifest.contents if record.HasField("artifact") else ():
            if not entry.local_path or Path(entry.local_path).is_file():
                continue
            here = run.absolute() / "artifacts" / "staging" / Path(entry.local_path).name
            if here.is_file():
                entry.local_path = str(here)
                changed += 1
            else:
                missing.append(entry.local_path)
        if changed > before:
            records[n] = record.SerializeToString()
    if missing:
        raise ConfigError(
            f"the run in '{run}' lacks {counted(len(missing), 'file')} of its own, first '{missing[0]}'; "
            "sync it on the machine where it was made."
        )
    if changed:
        write(file, log_of(records))
    return changed
