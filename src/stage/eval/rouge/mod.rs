//! ROUGE by two definitions that people use, and never mix: Google's `rouge-score` 0.1.2 and pltrdy's `rouge` 1.0.1. Unaware of files.
//!
//! C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries", 2004. The two packages tokenize, count and round differently;
//! both are followed bit for bit.

mod google;
mod lcs;
mod pltrdy;
mod porter;
mod stage;

pub(super) use stage::Rouge;

/// Precision, recall and F of one score.
pub(super) type Score = [f64; 3];
