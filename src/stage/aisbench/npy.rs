//! NumPy's `.npy`, as far as AISBench writes it: one dimension of `<f8`. Unaware of what the numbers are.
//!
//! Format: numpy.lib.format, versions 1.0 and 2.0.

/// The numbers of a `.npy` file; `Err` says what is wrong with it.
pub(super) fn floats(bytes: &[u8]) -> Result<Vec<f64>, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not in .npy format (its first bytes are others)")?;
    let (header, data) = match rest {
        [1, _, a, b, rest @ ..] => rest.split_at_checked(usize::from(u16::from_le_bytes([*a, *b]))),
        [2, _, a, b, c, d, rest @ ..] => rest.split_at_checked(u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        [major @ (0 | 3..), minor, ..] => {
            return Err(format!("version {major}.{minor} of .npy (1.0 and 2.0 are known)"));
        }
        _ => None,
    }
    .ok_or("cut short within its header")?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    if !header.contains("'descr': '<f8'") {
        return Err(format!("expected numbers of type <f8, found the header {}", header.trim()));
    }
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')'));
    let count = shape.and_then(|(shape, _)| shape.trim().strip_suffix(',')?.parse::<usize>().ok());
    let count = count.ok_or_else(|| format!("expected one dimension, found the header {}", header.trim()))?;
    let (numbers, rest) = data.as_chunks::<8>();
    if numbers.len() != count || !rest.is_empty() {
        return Err(format!("expected {count} numbers, found {} bytes", data.len()));
    }
    Ok(numbers.iter().map(|number| f64::from_le_bytes(*number)).collect())
}

/// Numbers as a `.npy` file, version 1.0.
pub(super) fn bytes(numbers: &[f64]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({},), }}", numbers.len());
    // magic, version, length and header together are a multiple of 64 bytes
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.bytes());
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(version: u8, header: &str, numbers: &[f64]) -> Vec<u8> {
        let mut out = b"\x93NUMPY".to_vec();
        out.extend([version, 0]);
        let len = header.len() as u32;
        out.extend_from_slice(&len.to_le_bytes()[..if version == 1 { 2 } else { 4 }]);
        out.extend_from_slice(header.as_bytes());
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        out
    }

    #[test]
    fn both_versions_and_what_is_wrong() {
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }   \n";
        for version in [1, 2] {
            assert_eq!(floats(&npy(version, header, &[1.5, -2.0])).unwrap(), [1.5, -2.0]);
        }
        for numbers in [&[][..], &[1.5], &[0.1; 1000]] {
            let bytes = bytes(numbers);
            assert_eq!(floats(&bytes).unwrap(), numbers);
            assert_eq!((bytes.len() - 8 * numbers.len()) % 64, 0);
        }
        let empty = header.replace("(2,)", "(0,)");
        assert_eq!(floats(&npy(1, &empty, &[])).unwrap(), [0.0; 0]);
        let whole = npy(1, header, &[1.5, -2.0]);
        for cut in 0..whole.len() {
            assert!(floats(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(floats(&npy(3, header, &[1.5, -2.0])).unwrap_err().starts_with("version 3.0"));
        assert!(floats(&npy(1, &header.replace("<f8", ">f8"), &[1.5, -2.0])).is_err());
        assert!(floats(&npy(1, &header.replace("(2,)", "(1, 2)"), &[1.5, -2.0])).is_err());
    }
}
