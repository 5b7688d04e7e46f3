//! Recorded times of requests, to be sent again. Unaware of what was asked then.

use serde::Deserialize;

use crate::api::{InputFile, StageError};
use crate::stage::table::jsonl::JsonLines;

/// Moments in seconds, ascending: mooncake JSON Lines (`timestamp` in ms), or CSV with a column `timestamp` or `Timestamp` in seconds.
pub(super) fn read(file: &InputFile) -> Result<Vec<f64>, StageError> {
    let csv = file.file_name().ends_with(".csv");
    let times = if csv { of_csv(file)? } else { of_lines(file)? };
    let late = times.windows(2).position(|pair| pair[1].total_cmp(&pair[0]).is_lt());
    match (times.first(), late) {
        (None, _) => Err(StageError::new(format!("{}: no time in it", file.name))),
        (_, Some(at)) => {
            Err(StageError::new(format!("{}: time {} lies before the one above it", file.name, at + 2))
                .hint("sort the trace by time"))
        }
        _ => Ok(times),
    }
}

fn of_lines(file: &InputFile) -> Result<Vec<f64>, StageError> {
    #[derive(Deserialize)]
    struct Line {
        timestamp: f64,
    }
    let mut lines = JsonLines::open(file)?;
    let mut times = Vec::new();
    while let Some(line) = lines.value::<Line>()? {
        times.push(line.timestamp / 1e3);
    }
    Ok(times)
}

fn of_csv(file: &InputFile) -> Result<Vec<f64>, StageError> {
    let fault = |message: String| StageError::new(format!("{}: {message}", file.name));
    let mut reader = csv::Reader::from_path(&file.path).map_err(|e| fault(e.to_string()))?;
    let headers = reader.headers().map_err(|e| fault(e.to_string()))?.clone();
    let column =
        headers.iter().position(|name| name.trim().eq_ignore_ascii_case("timestamp")).ok_or_else(|| {
            fault(format!("no column 'timestamp' (found: {})", headers.iter().collect::<Vec<_>>().join(", ")))
        })?;
    let mut times = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|e| fault(e.to_string()))?;
        let text = row.get(column).unwrap_or_default().trim();
        let time: f64 = text.parse().ok().filter(|time: &f64| time.is_finite()).ok_or_else(|| {
            let line = row.position().map_or(0, csv::Position::line);
            fault(format!("line {line}: {text:?} is no number of seconds"))
        })?;
        times.push(time);
    }
    Ok(times)
}
