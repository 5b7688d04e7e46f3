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

/// Why a pair has no scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unscored {
    /// The original raises this.
    Raised(&'static str),
    /// Two of its lines or sentences are too long for the union of longest common subsequences.
    TooLong(lcs::TooLong),
}

impl From<lcs::TooLong> for Unscored {
    fn from(too_long: lcs::TooLong) -> Self {
        Self::TooLong(too_long)
    }
}

/// Precision, recall and F of one score.
pub(super) type Score = [f64; 3];
