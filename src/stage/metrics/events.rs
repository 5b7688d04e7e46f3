//! The events of a request in a few bytes each: as they are kept while a load runs, and in its column `events`. Unaware of how
//! they were received.
//!
//! An event is `(gap << 4 | kind << 1 | counted)` as a LEB128 number, gap in ns since the event before (the first: since the moment
//! of the send), then the tokens as another number if they were counted.

use super::row::Kind;

const KINDS: [Kind; 8] = [
    Kind::Head,
    Kind::Role,
    Kind::Reasoning,
    Kind::Content,
    Kind::Usage,
    Kind::Done,
    Kind::Error,
    Kind::Data,
];

/// Events of one request, packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    bytes: Vec<u8>,
    last: u64,
}

impl Packed {
    /// None yet; gaps count from `from`, ns.
    pub fn since(from: u64) -> Self {
        Self { bytes: Vec::new(), last: from }
    }

    /// One more, not before the last.
    pub fn push(&mut self, at: u64, tokens: Option<u64>, kind: Kind) {
        let gap = at.saturating_sub(self.last);
        self.last = self.last.max(at);
        let place = KINDS.iter().position(|known| *known == kind).unwrap_or(0) as u64;
        self.number(u128::from(gap) << 4 | u128::from(place << 1 | u64::from(tokens.is_some())));
        if let Some(tokens) = tokens {
            self.number(tokens.into());
        }
    }

    fn number(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// As they are stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The events in `bytes`, in ns: `(moment, tokens, kind)`. `None` if they were damaged.
pub fn unpack(from: u64, bytes: &[u8]) -> Option<Vec<(u64, Option<u64>, Kind)>> {
    let (mut rest, mut at, mut out) = (bytes, from, Vec::new());
    while !rest.is_empty() {
        let packed = number(&mut rest)?;
        at = at.checked_add(u64::try_from(packed >> 4).ok()?)?;
        let kind = KINDS[(packed >> 1 & 7) as usize];
        let tokens = if packed & 1 == 1 { Some(u64::try_from(number(&mut rest)?).ok()?) } else { None };
        out.push((at, tokens, kind));
    }
    Some(out)
}

fn number(rest: &mut &[u8]) -> Option<u128> {
    let mut found = 0u128;
    for shift in (0..84).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        found |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn there_and_back(from in 0..u64::MAX / 2, events in prop::collection::vec((0..u64::MAX >> 8, prop::option::of(any::<u64>()), 0..8usize), 0..20)) {
            let (mut packed, mut at, mut wanted) = (Packed::since(from), from, Vec::new());
            for (gap, tokens, kind) in events {
                at += gap >> 6;
                packed.push(at, tokens, KINDS[kind]);
                wanted.push((at, tokens, KINDS[kind]));
            }
            prop_assert_eq!(unpack(from, packed.bytes()), Some(wanted));
        }

        #[test]
        fn damage_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = unpack(0, &bytes);
        }
    }
}
