//! `gpu_samples.csv` in a run directory: GPU memory sampled on the server while the run lasted, by
//! `nvidia-smi --query-gpu=timestamp,memory.used --format=csv -lms 500`. Unaware of databases.

use std::collections::HashSet;

use crate::api::StageError;
use crate::stage::table::csv::Table;

use super::tally::Extent;

/// The file's name.
pub(super) const FILE: &str = "gpu_samples.csv";

/// MiB in a GiB, the unit of the tool's own column.
const MIB: f64 = 1024.0;

/// What the samples come to.
#[derive(Debug, PartialEq)]
pub(super) struct Samples {
    /// Mean, highest and lowest memory in use, GiB; `None` without samples.
    pub(super) memory: Option<[f64; 3]>,
    /// How many were left out for lack of a GPU, the last one apart: sampling may have ended within it.
    pub(super) left_out: usize,
}

/// Memory in use over all samples. With a column `index` the memory of all GPUs of
/// a sample is added up, as evalscope does; a sample begins where an index comes again, and one that lacks a GPU of the others is left out. Without it each line is a sample.
pub(super) fn read(bytes: &[u8]) -> Result<Samples, StageError> {
    // the last line of a file that was cut has no end: its number may lack digits
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(bytes, |end| &bytes[..=end]);
    let table = Table::parse(FILE, whole)?;
    let column = |name: &str| table.columns().iter().position(|column| column.trim() == name);
    let Some(used) = column("memory.used [MiB]").or_else(|| column("memory.used")) else {
        return Err(StageError::new(format!("{FILE}:1: expected a column 'memory.used [MiB]'"))
            .hint("nvidia-smi --query-gpu=timestamp,memory.used --format=csv writes it"));
    };
    let index = column("index");
    let mut gpus: HashSet<String> = HashSet::new();
    // of each sample how many GPUs it has, and their memory
    let mut samples: Vec<(usize, f64)> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for row in table.rows() {
        let cell = row.cell(used);
        let cell = cell.trim();
        let value = cell.strip_suffix("MiB").unwrap_or(cell).trim().parse::<f64>().ok();
        let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) else {
            return Err(StageError::new(format!(
                "{FILE}:{}: expected a number of MiB, found '{cell}'",
                row.line()
            )));
        };
        let gpu = index.map_or_else(String::new, |index| row.cell(index).trim().to_owned());
        if seen.is_empty() || seen.contains(&gpu) {
            seen.clear();
            samples.push((0, 0.0));
        }
        if let Some((count, sum)) = samples.last_mut() {
            *count += 1;
            *sum += value;
        }
        gpus.insert(gpu.clone());
        seen.push(gpu);
    }
    let mut extent = Extent::default();
    let mut left_out = 0;
    for (place, (count, sum)) in samples.iter().enumerate() {
        if *count == gpus.len() {
            extent.add(sum / MIB);
        } else if place + 1 < samples.len() {
            left_out += 1;
        }
    }
    Ok(Samples { memory: extent.mean_high_low(), left_out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gpu_several_and_none() {
        let one = b"timestamp, memory.used [MiB]\n2026/01/01 08:00:00.123, 1024 MiB\n2026/01/01 08:00:01.125, 3072 MiB\n";
        let memory = |bytes: &[u8]| read(bytes).unwrap().memory;
        assert_eq!(memory(one), Some([2.0, 3.0, 1.0]));
        let cut = [&one[..], b"2026/01/01 08:00:02.125, 2"].concat();
        assert_eq!(read(&cut).unwrap(), read(one).unwrap(), "its number may lack digits");
        let two = b"timestamp, index, memory.used [MiB]\nt, 0, 512 MiB\nt, 1, 1536 MiB\nt, 0, 1024 MiB\nt, 1, 3072 MiB\n";
        assert_eq!(memory(two), Some([3.0, 4.0, 2.0]));
        let cut = [&two[..], b"t, 0, 1024 MiB\n"].concat();
        assert_eq!(read(&cut).unwrap(), read(two).unwrap(), "a sample without one of the GPUs");
        let lost = b"timestamp, index, memory.used [MiB]\nt, 0, 512 MiB\nt, 0, 512 MiB\nt, 1, 1536 MiB\n";
        assert_eq!(read(lost).unwrap(), Samples { memory: Some([2.0, 2.0, 2.0]), left_out: 1 });
        assert_eq!(memory(b"timestamp, memory.used [MiB]\n"), None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let message = |text: &[u8]| read(text).unwrap_err().to_string();
        assert_eq!(message(b"a,b\n1,2\n"), "gpu_samples.csv:1: expected a column 'memory.used [MiB]'");
        assert_eq!(
            message(b"timestamp, memory.used [MiB]\nt, 5 MiB\nt, [N/A]\n"),
            "gpu_samples.csv:3: expected a number of MiB, found '[N/A]'"
        );
    }
}
