"""A Parquet file as a table, of which some rows at a time are read, also where it has one group of rows only."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from astropy.table import MaskedColumn, Table

from spectangle.archives.tables.stored_table import StoredTable

__all__ = ["parquet_tables"]

BUFFER = 1 << 20  # bytes of a column that are read ahead


def parquet_tables(file: BinaryIO, where: str) -> Iterator[StoredTable]:
    """The table of an open file; numbers and text have their nulls as masks."""
    import pyarrow.parquet

    # else Arrow reads all of a group of rows before the first is used, and files mostly have one group
    parquet = pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)

    def read(at_once: int) -> Iterator[Table]:
        if at_once >= parquet.metadata.num_rows:
            yield _table(parquet.read())
        else:
            for batch in parquet.iter_batches(at_once):
                yield _table(batch)

    schema = parquet.schema_arrow
    wide = [field.name for field in schema if _is_wide(field.type)]
    yield StoredTable(where, "Parquet", schema.names, wide, parquet.metadata.num_rows, read)


def _is_wide(kind: Any) -> bool:
    import pyarrow as pa

    return not pa.types.is_primitive(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _table(part: Any) -> Table:
    """What Arrow read, as astropy has it: its own reader needs pandas, which makes floats of ids with nulls."""
    import pyarrow as pa

    columns = {}
    for name, column in zip(part.schema.names, part.columns, strict=True):
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        known = column.fill_null("" if is_text else 0) if is_text or pa.types.is_integer(column.type) else column
        values, mask = _numpy(known), _numpy(column.is_null())
        columns[name] = MaskedColumn(values.astype(str) if is_text else values, mask=mask)
    return Table(columns)


def _numpy(column: Any) -> Any:
    import pyarrow as pa

    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
