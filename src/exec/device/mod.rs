//! Devices: which there are, which of them this process may use, how a child is told of its own. Unaware of who leases them.

mod lock;
mod nvml;
mod smi;
mod visible;

use serde::{Deserialize, Serialize};

pub use lock::{Denied, MachineLock, MachineLocks};

use crate::model::{DeviceSpec, GpuDemand};
use visible::visible;

/// The model of virtual devices.
pub const VIRTUAL: &str = "virtual";

/// One device that can be leased: a GPU, a MIG instance of one, or a virtual one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// In the order of the PCI bus; that of the whole GPU for a MIG instance.
    pub index: u32,
    /// `GPU-...` or `MIG-...`; `virtual-0` and so on for a virtual one.
    pub uuid: String,
    /// As the driver names it; `virtual`.
    pub model: String,
    /// Bytes; 0 for a virtual one and where the driver does not tell (memory that is the machine's): as much as anybody asks for.
    pub memory: u64,
    /// Version of the driver; empty for a virtual one.
    pub driver: String,
}

impl Device {
    fn simulated(index: u32) -> Self {
        Self {
            index,
            uuid: format!("virtual-{index}"),
            model: VIRTUAL.to_owned(),
            memory: 0,
            driver: String::new(),
        }
    }

    /// No real one.
    pub fn is_virtual(&self) -> bool {
        self.model == VIRTUAL
    }

    /// Whether it is one of those asked for.
    pub fn fits(&self, demand: &GpuDemand) -> bool {
        let model = |wanted: &String| self.model.to_lowercase().contains(&wanted.to_lowercase());
        (self.memory == 0 || self.memory >= demand.mem) && demand.model.as_ref().is_none_or(model)
    }

    /// As `CUDA_VISIBLE_DEVICES` names it.
    fn visible_name(&self) -> String {
        if self.uuid.starts_with("MIG-") { self.uuid.clone() } else { self.index.to_string() }
    }
}

/// What a process that holds these devices finds in its environment: only they are visible to it, in this order.
pub fn device_env(devices: &[Device]) -> Vec<(String, String)> {
    let names: Vec<String> = devices.iter().map(Device::visible_name).collect();
    vec![
        ("CUDA_VISIBLE_DEVICES".to_owned(), names.join(",")),
        // so that an index means the same device to CUDA as to the driver
        ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()),
    ]
}

/// `2 of at least 40960 MiB whose model has "H200" in its name`
pub fn worded(demand: &GpuDemand) -> String {
    let mut text = match demand.count {
        0 | 1 => "a GPU".to_owned(),
        count => format!("{count} GPUs"),
    };
    if demand.mem > 0 {
        text.push_str(&format!(" of at least {} MiB", demand.mem >> 20));
    }
    if let Some(model) = &demand.model {
        text.push_str(&format!(" whose model has \"{model}\" in its name"));
    }
    text
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of their indices.
    pub devices: Vec<Device>,
    /// Why there are none, or not all: who was asked, and what it said.
    pub notes: Vec<String>,
}

/// Finds the devices that `spec` names. `env` is the environment, which may hide some.
///
/// # Errors
/// The list names one that is not there; the message names those that are.
pub fn discover(spec: &DeviceSpec, env: &dyn Fn(&str) -> Option<String>) -> Result<Found, String> {
    let names = match spec {
        DeviceSpec::Virtual(count) => {
            return Ok(Found { devices: (0..*count).map(Device::simulated).collect(), notes: Vec::new() });
        }
        DeviceSpec::Auto => None,
        DeviceSpec::Listed(names) => Some(names),
    };
    let mut notes = Vec::new();
    let mut devices = match nvml::devices() {
        Ok(devices) => devices,
        Err(by_nvml) => smi::devices(env("PATH").as_deref()).unwrap_or_else(|by_smi| {
            notes.extend([by_nvml, by_smi]);
            Vec::new()
        }),
    };
    devices.sort_by(|a, b| (a.index, &a.uuid).cmp(&(b.index, &b.uuid)));
    if let Some(mask) = env("CUDA_VISIBLE_DEVICES") {
        let before = devices.len();
        devices = visible(&mask, devices);
        if devices.len() < before {
            notes.push(format!("CUDA_VISIBLE_DEVICES={mask} leaves {} of {before}", devices.len()));
        }
    }
    let Some(names) = names else { return Ok(Found { devices, notes }) };
    let mut listed: Vec<Device> = Vec::with_capacity(names.len());
    for name in names {
        let meant: Vec<&Device> = devices.iter().filter(|device| visible::is_named(device, name)).collect();
        match meant.as_slice() {
            [one] if listed.contains(one) => {
                return Err(format!(
                    "{name} is device {} ({}), which is listed already",
                    one.index, one.uuid
                ));
            }
            [one] => listed.push((*one).clone()),
            [_, ..] => return Err(format!("{name} begins the UUIDs of {} devices", meant.len())),
            [] => {
                let there: Vec<String> =
                    devices.iter().map(|device| format!("{} ({})", device.index, device.uuid)).collect();
                let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
                let why: String = notes.iter().map(|note| format!("; {note}")).collect();
                return Err(format!("there is no device {name}; there are: {there}{why}"));
            }
        }
    }
    Ok(Found { devices: listed, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(mem: u64, model: Option<&str>) -> GpuDemand {
        GpuDemand { count: 1, mem, model: model.map(str::to_owned) }
    }

    #[test]
    fn virtual_devices_have_any_memory_and_their_own_model() {
        let found = discover(&DeviceSpec::Virtual(2), &|_| None).unwrap();
        let uuids: Vec<&str> = found.devices.iter().map(|device| device.uuid.as_str()).collect();
        assert_eq!(uuids, ["virtual-0", "virtual-1"]);
        assert!(found.devices[0].fits(&demand(1 << 50, None)));
        assert!(found.devices[0].fits(&demand(0, Some("Virtual"))));
        assert!(!found.devices[0].fits(&demand(0, Some("H200"))));
    }

    #[test]
    fn a_real_one_has_its_memory_and_part_of_its_name_is_enough() {
        let device = Device {
            index: 3,
            uuid: "GPU-1".to_owned(),
            model: "NVIDIA H200".to_owned(),
            memory: 100,
            driver: "1".to_owned(),
        };
        assert!(device.fits(&demand(100, Some("h200"))) && !device.fits(&demand(101, None)));
        assert!(!device.fits(&demand(0, Some("H100"))));
        let mig = Device { uuid: "MIG-9".to_owned(), ..device.clone() };
        let env = device_env(&[device, mig]);
        assert_eq!(env[0].1, "3,MIG-9");
        assert_eq!(env[1], ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()));
    }

    #[test]
    fn a_demand_in_words() {
        assert_eq!(worded(&demand(0, None)), "a GPU");
        let two = GpuDemand { count: 2, ..demand(40 << 30, Some("A100")) };
        assert_eq!(worded(&two), "2 GPUs of at least 40960 MiB whose model has \"A100\" in its name");
    }
}
