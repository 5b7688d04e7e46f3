//! `CUDA_VISIBLE_DEVICES` as CUDA reads it. Unaware of how devices are found.

use super::Device;

/// Whether `name` means this device: its index, or the begin of its UUID.
pub(super) fn is_named(device: &Device, name: &str) -> bool {
    match name.parse::<u32>() {
        // the index of a GPU that is cut into instances means none of them
        Ok(index) => device.index == index && !device.uuid.starts_with("MIG-"),
        Err(_) => name.len() > "GPU-".len() && device.uuid.starts_with(name),
    }
}

/// The devices that `mask` leaves, in its order. What follows a name that means none is hidden, too.
pub(super) fn visible(mask: &str, devices: Vec<Device>) -> Vec<Device> {
    let mut left: Vec<Device> = Vec::new();
    for name in mask.split(',').map(str::trim) {
        let mut meant = devices.iter().filter(|device| is_named(device, name));
        match (meant.next(), meant.next()) {
            (Some(device), None) if !left.contains(device) => left.push(device.clone()),
            _ => break,
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Vec<Device> {
        let device = |index, uuid: &str| Device {
            index,
            uuid: uuid.to_owned(),
            model: "M".to_owned(),
            memory: 1,
            driver: "1".to_owned(),
        };
        vec![device(0, "GPU-aa1"), device(1, "GPU-ab2"), device(2, "MIG-c3"), device(2, "MIG-d4")]
    }

    #[test]
    fn a_mask_chooses_orders_and_ends_at_what_it_does_not_know() {
        for (mask, expected) in [
            ("", vec![]),
            ("-1", vec![]),
            ("1,0", vec!["GPU-ab2", "GPU-aa1"]),
            (" 1 , 0 ", vec!["GPU-ab2", "GPU-aa1"]),
            ("1,-1,0", vec!["GPU-ab2"]),
            ("0,7,1", vec!["GPU-aa1"]),
            ("0,0,1", vec!["GPU-aa1"]),
            ("GPU-ab", vec!["GPU-ab2"]),
            ("GPU-a", vec![]),
            ("GPU-", vec![]),
            ("2", vec![]),
            ("MIG-d4,MIG-c3", vec!["MIG-d4", "MIG-c3"]),
            ("NoDevFiles", vec![]),
        ] {
            let left: Vec<String> = visible(mask, devices()).into_iter().map(|device| device.uuid).collect();
            assert_eq!(left, expected, "{mask:?}");
        }
    }
}
