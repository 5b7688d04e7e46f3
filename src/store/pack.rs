//! Bytes as they are kept: zstd level 1, or as they are where that saves too little. Unaware of files and tables.
//!
//! The first four bytes tell which: a zstd frame begins with a magic number, and content that happens to begin with it is always
//! compressed, so that packed bytes need no header of their own and a raw blob is a plain copy of its content.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

/// The first bytes of every zstd frame.
pub(super) const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// The zstd level of everything in the cache.
pub(super) const LEVEL: i32 = 1;

/// Shorter content is not worth a try: what it could save is less than what it costs.
const WORTH_A_TRY: usize = 512;

/// Content that claims to be larger than this is unpacked piece by piece instead of into one buffer of the claimed size.
const ONE_BUFFER: u64 = 64 << 20;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// True if `saved` compressed bytes are worth it: at least 5 % fewer than `plain`.
pub(super) fn worth_it(plain: usize, packed: usize) -> bool {
    packed as u128 * 100 <= plain as u128 * 95
}

/// `bytes` as they are kept.
pub(super) fn pack(bytes: &[u8]) -> io::Result<Cow<'_, [u8]>> {
    let must = bytes.starts_with(&MAGIC);
    if bytes.len() < WORTH_A_TRY && !must {
        return Ok(Cow::Borrowed(bytes));
    }
    let packed = COMPRESSOR.with_borrow_mut(|slot| match slot {
        Some(compressor) => compressor.compress(bytes),
        None => slot.insert(Compressor::new(LEVEL)?).compress(bytes),
    })?;
    Ok(if must || worth_it(bytes.len(), packed.len()) { Cow::Owned(packed) } else { Cow::Borrowed(bytes) })
}

/// The content of packed bytes; an error if they are damaged.
pub(super) fn unpack(packed: Cow<'_, [u8]>) -> io::Result<Vec<u8>> {
    if !packed.starts_with(&MAGIC) {
        return Ok(packed.into_owned());
    }
    match content_size(&packed) {
        Some(size) if size <= ONE_BUFFER => DECOMPRESSOR.with_borrow_mut(|slot| match slot {
            Some(decompressor) => decompressor.decompress(&packed, size as usize),
            None => slot.insert(Decompressor::new()?).decompress(&packed, size as usize),
        }),
        _ => zstd::stream::decode_all(&*packed),
    }
}

/// The size of the content, where the head of a zstd frame tells it.
pub(super) fn content_size(head: &[u8]) -> Option<u64> {
    zstd::zstd_safe::get_frame_content_size(head).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_it_is_it_comes_back() {
        let noise: Vec<u8> = (0..5000).map(|_| fastrand::u8(..)).collect();
        let mut looks_packed = MAGIC.to_vec();
        looks_packed.extend_from_slice(b"no frame at all");
        for (bytes, compressed) in [
            (Vec::new(), false),
            (b"short".to_vec(), false),
            (vec![b'x'; 100_000], true),
            (noise, false),
            (looks_packed, true),
            (MAGIC.to_vec(), true),
        ] {
            let packed = pack(&bytes).unwrap().into_owned();
            assert_eq!(packed.starts_with(&MAGIC), compressed, "{} bytes", bytes.len());
            assert_eq!(unpack(Cow::Owned(packed)).unwrap(), bytes);
        }
    }

    #[test]
    fn damage_is_an_error() {
        let packed = pack(&[b'x'; 1000]).unwrap().into_owned();
        assert!(unpack(Cow::Borrowed(&packed[..packed.len() - 3])).is_err());
    }
}
