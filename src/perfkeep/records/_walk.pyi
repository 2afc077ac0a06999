from perfkeep.records.pure_decode import Buffer

def walk(
    data: memoryview | bytes, start: int, end: int, every: int
) -> tuple[int, int, int, list[int], list[int]]: ...
def first_chained(data: memoryview | bytes, start: int, ids: bytes) -> int: ...
def split(
    data: memoryview | bytes,
    start: int,
    end: int,
    id_at: int,
    ids: bytes,
    kinds: bytes,
    count: int,
) -> tuple[int, int, list[Buffer]]: ...
def decode(
    data: memoryview | bytes,
    places: Buffer,
    parts: bytes,
    fields: bytes,
    starts: Buffer,
    counts: Buffer,
    fits: Buffer,
    columns: tuple[Buffer, ...],
) -> bool: ...
def join(data: Buffer, places: Buffer, lengths: Buffer, out: Buffer) -> None: ...
def spell(texts: Buffer, begins: Buffer, numbers: Buffer) -> tuple[bytes, bytes]: ...
def latest(changes: Buffer, whose: Buffer, times: Buffer, out: Buffer) -> None: ...
def texts(data: Buffer, places: Buffer, lengths: Buffer) -> tuple[bytes, bytes, Buffer]: ...
