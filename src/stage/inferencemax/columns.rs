//! The dictionary of the tables' columns: units and meanings. Unaware of files; who asks for an unknown column is told so.

use serde::{Deserialize, Serialize};

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// As in the header.
    pub name: String,
    /// `None`: no number, or not in the dictionary.
    pub unit: Option<String>,
    /// What it says.
    pub meaning: String,
}

/// What stands where the dictionary has no entry: a sign that the source changed its schema.
pub const UNKNOWN: &str = "unknown: not in the dictionary";

const THROUGHPUT: &str = "tok/s/GPU";
const COST: &str = "US$ per million tokens";
const FRONT: &str = "the point is on the Pareto front of its hwKey in its file";

const DICTIONARY: [(&str, &str, &str); 22] = [
    ("model_name", "", "display name of the model"),
    ("sequence_length", "", "input and output length in tokens, 1k = 1024"),
    ("conc", "requests", "concurrent requests of the measurement"),
    ("costh_roof", "bool", FRONT),
    ("costh_y", COST, "cost at a hyperscaler's price per GPU and hour"),
    ("costn_roof", "bool", FRONT),
    ("costn_y", COST, "cost at a neocloud's price per GPU and hour"),
    ("costr_roof", "bool", FRONT),
    ("costr_y", COST, "cost at the price of a three-year rental per GPU and hour"),
    ("hwKey", "", "hardware and, after _ or -, the software variant"),
    ("precision", "", "number format of the weights"),
    ("tp", "GPUs", "tensor parallel size"),
    ("tpPerGpu_roof", "bool", FRONT),
    ("tpPerGpu_y", THROUGHPUT, "throughput per GPU"),
    ("tpPerMw_roof", "bool", FRONT),
    ("tpPerMw_y", "tok/s/MW", "throughput per megawatt of all-in power"),
    (
        "x",
        "s (e2e), tok/s/user (interactivity)",
        "end-to-end latency, or interactivity, by the kind of the table",
    ),
    ("y", THROUGHPUT, "throughput per GPU, equal to tpPerGpu_y"),
    ("e2e_x", "s", "end-to-end latency"),
    ("e2e_y", THROUGHPUT, "throughput per GPU, from the end-to-end chart"),
    ("inter_x", "tok/s/user", "interactivity"),
    ("inter_y", THROUGHPUT, "throughput per GPU, from the interactivity chart"),
];

/// The entry of a column; one that is not in the dictionary says so.
pub fn describe(name: &str) -> Column {
    let entry = DICTIONARY.iter().find(|(known, _, _)| *known == name);
    let (unit, meaning) = entry.map_or(("", UNKNOWN), |(_, unit, meaning)| (*unit, *meaning));
    Column {
        name: name.to_owned(),
        unit: (!unit.is_empty()).then(|| unit.to_owned()),
        meaning: meaning.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown() {
        assert_eq!(describe("e2e_x").unit.as_deref(), Some("s"));
        assert_eq!(describe("hwKey").unit, None);
        let unknown = describe("tpPerRack_y");
        assert_eq!((unknown.unit, unknown.meaning.as_str()), (None, UNKNOWN));
    }
}
