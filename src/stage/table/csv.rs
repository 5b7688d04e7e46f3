//! The one CSV dialect of the stages: comma, quotes only where needed, UTF-8, header line first. Unaware of what columns mean.

mod cut;
mod marks;
mod record;
mod stream;
mod table;
mod write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::record::{Alike, Record};
pub use self::stream::TableReader;
pub use self::table::{Row, Table};
pub use self::write::{TableWriter, end_record, push_cell};

/// How lines of a written table end. Both are read, mixed too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LineEnd {
    /// `\r\n`, as RFC 4180 says and Python's `csv` module writes.
    #[default]
    Crlf,
    /// `\n`
    Lf,
}

#[cfg(test)]
mod tests;
