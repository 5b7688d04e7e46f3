//! Parquet as a typed table. Only in a flow that was built with the feature `parquet`, because of the crates it brings.

mod read;
mod write;

pub(super) use self::read::read;
pub(super) use self::write::ToParquet;
