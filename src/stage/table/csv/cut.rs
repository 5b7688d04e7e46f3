//! A text cut into pieces that can be read at the same time: each begins where a record begins. Unaware of cells.

use rayon::prelude::*;

/// Where pieces of about `size` bytes begin; the first is `from`, which must be the begin of a record or blank.
///
/// A line end may stand inside a quoted cell. So each piece is looked at for both cases, that it begins outside quotes and that it
/// begins inside: the pieces before it then say which one holds, and cuts inside quotes are given up.
pub(super) fn cuts(text: &str, from: usize, size: usize) -> Vec<usize> {
    let bytes = text.as_bytes();
    let mut places = vec![from];
    let mut at = from;
    while let Some(rest) = bytes.get(at + size..) {
        let Some(length) = rest.iter().position(|b| *b == b'\n') else { break };
        at += size + length + 1;
        if at < bytes.len() {
            places.push(at);
        }
    }
    let ends: Vec<[bool; 2]> = places
        .par_windows(2)
        .map(|piece| {
            let piece = &bytes[piece[0]..piece[1]];
            [ends_quoted(piece, false), ends_quoted(piece, true)]
        })
        .collect();
    let mut quoted = false;
    let mut kept = vec![from];
    for (place, end) in places[1..].iter().zip(ends) {
        quoted = end[usize::from(quoted)];
        if !quoted {
            kept.push(*place);
        }
    }
    kept
}

/// Whether the end of `piece`, which ends with a line end, is inside a quoted cell; `quoted`: its begin is.
fn ends_quoted(piece: &[u8], mut quoted: bool) -> bool {
    let next = |from: usize| piece[from..].iter().position(|b| *b == b'"').map(|length| from + length);
    let mut at = 0;
    while let Some(quote) = next(at) {
        at = quote + 1;
        if !quoted {
            // it opens a cell only where one begins
            quoted = quote == 0 || matches!(piece[quote - 1], b',' | b'\r' | b'\n');
        } else if piece.get(at) == Some(&b'"') {
            at += 1;
        } else {
            quoted = false;
        }
    }
    quoted
}
