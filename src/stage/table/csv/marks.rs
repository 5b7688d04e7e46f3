//! Where commas, quotes and line ends stand in 64 bytes, as bits. Unaware of records.

use wide::u8x16;

/// The bits of a block of 64 bytes, the first byte lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) commas: u64,
    /// Quotes and line ends: `"`, `\r`, `\n`.
    pub(super) stops: u64,
}

/// The marks of the 64 bytes from `at`; beyond the end of `bytes` there are none.
pub(super) fn marks(bytes: &[u8], at: usize) -> Marks {
    let rest = &bytes[at..];
    if let Some(block) = rest.first_chunk::<64>() {
        return of_block(block);
    }
    let mut block = [0; 64];
    block[..rest.len()].copy_from_slice(rest);
    of_block(&block)
}

/// Sixteen bytes at a time.
fn of_block(block: &[u8; 64]) -> Marks {
    let mut marks = Marks { commas: 0, stops: 0 };
    for (index, sixteen) in block.as_chunks::<16>().0.iter().enumerate() {
        let bytes = u8x16::from(*sixteen);
        let equal = |byte: u8| bytes.simd_eq(u8x16::splat(byte));
        let stops = equal(b'"') | equal(b'\r') | equal(b'\n');
        marks.commas |= u64::from(equal(b',').to_bitmask()) << (16 * index);
        marks.stops |= u64::from(stops.to_bitmask()) << (16 * index);
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte_by_byte(block: &[u8]) -> Marks {
        let bits = |wanted: fn(u8) -> bool| {
            block.iter().enumerate().fold(0, |bits, (place, byte)| bits | u64::from(wanted(*byte)) << place)
        };
        Marks { commas: bits(|b| b == b','), stops: bits(|b| matches!(b, b'"' | b'\r' | b'\n')) }
    }

    proptest::proptest! {
        #[test]
        fn each_bit_is_that_of_its_byte(block in proptest::array::uniform32(proptest::num::u64::ANY), at in 0..64_usize) {
            // few kinds of bytes, so that marks are frequent
            let kinds = b",\"\r\n\0\x80\xacA";
            let bytes: Vec<u8> = block.iter().flat_map(|n| n.to_le_bytes()).map(|b| kinds[usize::from(b % 8)]).collect();
            proptest::prop_assert_eq!(marks(&bytes, at), byte_by_byte(&bytes[at..at + 64]));
            proptest::prop_assert_eq!(marks(&bytes[..at], 0), byte_by_byte(&bytes[..at]));
        }
    }
}
