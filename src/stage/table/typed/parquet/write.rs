//! A typed table as Parquet: optional columns, row groups of bounded size, zstd. The same rows give the same bytes.

use std::fs::File;
use std::mem::take;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

use crate::api::StageError;
use crate::stage::table::typed::{Cell, Column, Kind, Sink, to_text};

/// A row group ends at so many rows, or at so many bytes of text.
const ROWS: usize = 1 << 16;
const BYTES: usize = 16 << 20;

/// The cells of a column that are not null, and for each row whether it has one (1) or not (0).
struct Part {
    values: Values,
    there: Vec<i16>,
}

enum Values {
    Bools(Vec<bool>),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<ByteArray>),
}

/// Writes Parquet.
pub(in crate::stage::table::typed) struct ToParquet {
    writer: SerializedFileWriter<File>,
    parts: Vec<Part>,
    rows: usize,
    bytes: usize,
    output: String,
}

impl ToParquet {
    pub(in crate::stage::table::typed) fn new(
        file: File,
        output: &str,
        columns: &[Column],
    ) -> Result<Self, StageError> {
        let failed = |e: ParquetError| failed(output, &e);
        let fields: Result<Vec<Arc<Type>>, ParquetError> = columns.iter().map(field).collect();
        let schema = Type::group_type_builder("table").with_fields(fields.map_err(failed)?).build();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("flow".to_owned())
            .build();
        let writer = SerializedFileWriter::new(file, Arc::new(schema.map_err(failed)?), Arc::new(properties))
            .map_err(failed)?;
        let parts = columns.iter().map(|column| Part { values: Values::of(column.kind), there: Vec::new() });
        Ok(Self { writer, parts: parts.collect(), rows: 0, bytes: 0, output: output.to_owned() })
    }

    fn write_group(&mut self) -> Result<(), StageError> {
        let mut group = self.writer.next_row_group().map_err(|e| failed(&self.output, &e))?;
        let written = self.parts.iter_mut().try_for_each(|part| {
            let there = take(&mut part.there);
            match &mut part.values {
                Values::Bools(values) => write::<BoolType>(&mut group, &take(values), &there),
                Values::Ints(values) => write::<Int64Type>(&mut group, &take(values), &there),
                Values::Floats(values) => write::<DoubleType>(&mut group, &take(values), &there),
                Values::Texts(values) => write::<ByteArrayType>(&mut group, &take(values), &there),
            }
        });
        written.and_then(|()| group.close()).map_err(|e| failed(&self.output, &e))?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl Values {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bools(Vec::new()),
            Kind::Int => Self::Ints(Vec::new()),
            Kind::Float => Self::Floats(Vec::new()),
            Kind::Text => Self::Texts(Vec::new()),
        }
    }
}

impl Sink for ToParquet {
    fn row(&mut self, cells: &[Cell]) -> Result<(), StageError> {
        for (part, cell) in self.parts.iter_mut().zip(cells) {
            part.there.push(i16::from(*cell != Cell::Null));
            match (&mut part.values, cell) {
                (_, Cell::Null) => {}
                (Values::Bools(values), Cell::Bool(b)) => values.push(*b),
                (Values::Ints(values), Cell::Int(n)) => values.push(*n),
                (Values::Floats(values), Cell::Float(n)) => values.push(*n),
                (Values::Texts(values), Cell::Text(text)) => {
                    self.bytes += text.len();
                    values.push(ByteArray::from(text.as_ref()));
                }
                (_, other) => {
                    return Err(StageError::new(format!(
                        "output '{}': '{}' is not of its column's type",
                        self.output,
                        to_text(other)
                    )));
                }
            }
        }
        self.rows += 1;
        if self.rows >= ROWS || self.bytes >= BYTES { self.write_group() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<(), StageError> {
        if self.rows > 0 {
            self.write_group()?;
        }
        let Self { writer, output, .. } = *self;
        writer.close().map(drop).map_err(|e| failed(&output, &e))
    }
}

fn field(column: &Column) -> Result<Arc<Type>, ParquetError> {
    let (physical, logical) = match column.kind {
        Kind::Bool => (Physical::BOOLEAN, None),
        Kind::Int => (Physical::INT64, None),
        Kind::Float => (Physical::DOUBLE, None),
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
    };
    Type::primitive_type_builder(&column.name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()
        .map(Arc::new)
}

fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    there: &[i16],
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("a column too many".into()));
    };
    column.typed::<T>().write_batch(values, Some(there), None)?;
    column.close()
}

fn failed(output: &str, cause: &ParquetError) -> StageError {
    StageError::new(format!("failed to write output '{output}': {cause}"))
}
