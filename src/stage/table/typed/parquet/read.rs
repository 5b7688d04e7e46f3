//! The rows of a Parquet file, row group by row group. What has no type of ours is text; a blob is refused.

use std::fs::File;

use jiff::Timestamp;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use crate::api::{InputFile, StageError};
use crate::stage::table::typed::Cell;
use crate::stage::table::typed::source::Take;

/// Gives every row; returns the columns that the schema names.
pub(in crate::stage::table::typed) fn read(
    file: &InputFile,
    take: &mut Take,
) -> Result<Vec<String>, StageError> {
    let failed = |e: parquet::errors::ParquetError| StageError::new(format!("{}: {e}", file.name));
    let opened = File::open(&file.path).map_err(|e| StageError::new(format!("{}: {e}", file.name)))?;
    let reader = SerializedFileReader::new(opened).map_err(failed)?;
    let columns: Vec<String> = reader
        .metadata()
        .file_metadata()
        .schema()
        .get_fields()
        .iter()
        .map(|field| field.name().to_owned())
        .collect();
    for (number, row) in reader.get_row_iter(None).map_err(failed)?.enumerate() {
        let row = row.map_err(failed)?;
        let place = || format!(" row {}", number + 1);
        let mut cells = Vec::with_capacity(columns.len());
        for (name, field) in row.get_column_iter() {
            let refused = |what: &str| {
                StageError::new(format!("{}{}, column '{name}': {what}", file.name, place()))
                    .hint("leave the column out where the file is written")
            };
            cells.push((name.as_str(), cell(field).map_err(refused)?));
        }
        take(&place, &mut cells.into_iter())?;
    }
    Ok(columns)
}

/// A field as a cell; `Err` says what it is where a table has no value for it.
fn cell(field: &Field) -> Result<Cell<'_>, &'static str> {
    Ok(match field {
        Field::Null => Cell::Null,
        Field::Bool(b) => Cell::Bool(*b),
        Field::Byte(n) => Cell::Int((*n).into()),
        Field::Short(n) => Cell::Int((*n).into()),
        Field::Int(n) => Cell::Int((*n).into()),
        Field::Long(n) => Cell::Int(*n),
        Field::UByte(n) => Cell::Int((*n).into()),
        Field::UShort(n) => Cell::Int((*n).into()),
        Field::UInt(n) => Cell::Int((*n).into()),
        Field::ULong(n) => i64::try_from(*n).map_or_else(|_| Cell::Text(n.to_string().into()), Cell::Int),
        Field::Float16(x) => Cell::Float(x.to_f64()),
        Field::Float(x) => Cell::Float((*x).into()),
        Field::Double(x) => Cell::Float(*x),
        Field::Str(text) => Cell::Text(text.as_str().into()),
        Field::Date(days) => Cell::Text(date(*days).into()),
        Field::TimestampMillis(n) => Cell::Text(instant(Timestamp::from_millisecond(*n), *n).into()),
        Field::TimestampMicros(n) => Cell::Text(instant(Timestamp::from_microsecond(*n), *n).into()),
        Field::TimeMillis(_) | Field::TimeMicros(_) | Field::Decimal(_) => {
            Cell::Text(field.to_string().into())
        }
        Field::Bytes(_) => return Err("bytes that are no text are no value of a table"),
        Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => {
            Cell::Text(json(field)?.to_string().into())
        }
    })
}

/// A day since 1970 as `YYYY-MM-DD`.
fn date(days: i32) -> String {
    let midnight = Timestamp::from_second(i64::from(days) * 86_400);
    midnight
        .map_or_else(|_| days.to_string(), |at| at.to_string().chars().take_while(|c| *c != 'T').collect())
}

/// An instant as `YYYY-MM-DDTHH:MM:SS.sssZ`; the number itself where a calendar has no such year.
fn instant(at: Result<Timestamp, jiff::Error>, number: i64) -> String {
    at.map_or_else(|_| number.to_string(), |at| at.to_string())
}

/// What is nested, as JSON; what is no finite number in it is null.
fn json(field: &Field) -> Result<Value, &'static str> {
    Ok(match field {
        Field::Group(row) => {
            let member = |(name, field): (&String, &Field)| json(field).map(|value| (name.clone(), value));
            Value::Object(row.get_column_iter().map(member).collect::<Result<_, _>>()?)
        }
        Field::ListInternal(list) => list.elements().iter().map(json).collect::<Result<_, _>>()?,
        Field::MapInternal(map) => {
            let member = |(key, value): &(Field, Field)| {
                let key = match json(key)? {
                    Value::String(key) => key,
                    key => key.to_string(),
                };
                json(value).map(|value| (key, value))
            };
            Value::Object(map.entries().iter().map(member).collect::<Result<_, _>>()?)
        }
        flat => match cell(flat)? {
            Cell::Null => Value::Null,
            Cell::Bool(b) => b.into(),
            Cell::Int(n) => n.into(),
            Cell::Float(x) => x.into(),
            Cell::Text(text) | Cell::Spelled(text) => text.into_owned().into(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use parquet::basic::{Compression, GzipLevel};
    use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
    use parquet::schema::parser::parse_message_type;

    const SCHEMA: &str = "message of_others {
        required int32 small (INTEGER(8,true));
        required int64 huge (INTEGER(64,false));
        required float single;
        required int32 day (DATE);
        required int64 at (TIMESTAMP(MILLIS,true));
        required int64 fine (TIMESTAMP(NANOS,true));
        required int32 price (DECIMAL(9,2));
        optional group list (LIST) { repeated group list { optional binary element (STRING); } }
        optional binary bytes;
    }";

    fn write<T: DataType>(
        group: &mut SerializedRowGroupWriter<'_, File>,
        values: &[T::T],
        levels: Option<(&[i16], &[i16])>,
    ) {
        let mut column = group.next_column().unwrap().unwrap();
        let (defined, repeated) = levels.unzip();
        column.typed::<T>().write_batch(values, defined, repeated).unwrap();
        column.close().unwrap();
    }

    fn made(compression: Compression, blob: bool) -> (tempfile::TempDir, InputFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = InputFile { path: dir.path().join("t.parquet"), name: "t.parquet".into() };
        let properties = WriterProperties::builder().set_compression(compression).build();
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let opened = File::create(&file.path).unwrap();
        let mut writer = SerializedFileWriter::new(opened, schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        write::<Int32Type>(&mut group, &[-5, 7], None);
        write::<Int64Type>(&mut group, &[-1, 3], None);
        write::<FloatType>(&mut group, &[0.1, f32::NAN], None);
        write::<Int32Type>(&mut group, &[0, 19_723], None);
        write::<Int64Type>(&mut group, &[1_704_067_200_125, -1], None);
        write::<Int64Type>(&mut group, &[1, 2], None);
        write::<Int32Type>(&mut group, &[1999, -5], None);
        let texts = ["a", "b\""].map(ByteArray::from);
        write::<ByteArrayType>(&mut group, &texts, Some((&[3, 3, 0], &[0, 1, 0])));
        let bytes: &[ByteArray] = if blob { &[ByteArray::from(vec![0xff])] } else { &[] };
        write::<ByteArrayType>(&mut group, bytes, Some((&[0, i16::from(blob)], &[0, 0])));
        group.close().unwrap();
        writer.close().unwrap();
        (dir, file)
    }

    fn rows(file: &InputFile) -> Result<Vec<String>, String> {
        let mut rows = Vec::new();
        let mut take = |_: &dyn Fn() -> String, cells: &mut dyn Iterator<Item = (&str, Cell)>| {
            rows.push(cells.map(|(name, cell)| format!("{name} {cell:?}")).collect::<Vec<_>>().join(", "));
            Ok(())
        };
        read(file, &mut take).map_err(|e| e.to_string())?;
        Ok(rows)
    }

    #[test]
    fn what_others_write() {
        let all = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::LZ4_RAW,
        ];
        for compression in all {
            let (_dir, file) = made(compression, false);
            expect_test::expect![[r#"
                small Int(-5), huge Text("18446744073709551615"), single Float(0.10000000149011612), day Text("1970-01-01"), at Text("2024-01-01T00:00:00.125Z"), fine Int(1), price Text("19.99"), list Text("[\"a\",\"b\\\"\"]"), bytes Null
                small Int(7), huge Int(3), single Float(NaN), day Text("2024-01-01"), at Text("1969-12-31T23:59:59.999Z"), fine Int(2), price Text("-0.05"), list Null, bytes Null"#]]
            .assert_eq(&rows(&file).unwrap().join("\n"));
        }
    }

    #[test]
    fn what_is_refused() {
        let (_dir, file) = made(Compression::UNCOMPRESSED, true);
        assert_eq!(
            rows(&file).unwrap_err(),
            "t.parquet row 2, column 'bytes': bytes that are no text are no value of a table"
        );
        std::fs::write(&file.path, "PAR1 and no more").unwrap();
        assert!(rows(&file).unwrap_err().starts_with("t.parquet: "));
    }
}
