//! Devices as the NVIDIA Management Library tells of them; the library is looked for when it is asked. Unaware of masks.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::Device;

/// The name without a number comes with development packages only.
const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// All devices; of a GPU that is cut into MIG instances, those.
///
/// # Errors
/// In words: there is no library, or it does not answer.
pub(super) fn devices() -> Result<Vec<Device>, String> {
    let mut last = String::new();
    for name in NAMES {
        match Nvml::builder().lib_path(name.as_ref()).init() {
            Ok(nvml) => return all(&nvml).map_err(|error| format!("NVML: {error}")),
            Err(error) => last = format!("NVML: {}", told(&error)),
        }
    }
    Err(last)
}

fn told(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(_) => "there is no libnvidia-ml.so.1".to_owned(),
        other => other.to_string(),
    }
}

fn all(nvml: &Nvml) -> Result<Vec<Device>, NvmlError> {
    let driver = nvml.sys_driver_version()?;
    let mut devices = Vec::new();
    for index in 0..nvml.device_count()? {
        let gpu = nvml.device_by_index(index)?;
        let one = |device: &nvml_wrapper::Device<'_>| {
            Ok::<_, NvmlError>(Device {
                index,
                uuid: device.uuid()?,
                model: device.name()?,
                memory: match device.memory_info() {
                    Ok(memory) => memory.total,
                    // its memory is the machine's
                    Err(NvmlError::NotSupported) => 0,
                    Err(error) => return Err(error),
                },
                driver: driver.clone(),
            })
        };
        // most models have no MIG, and say so by an error
        let is_cut = gpu.mig_mode().is_ok_and(|mode| mode.current != 0);
        if !is_cut {
            devices.push(one(&gpu)?);
            continue;
        }
        for instance in 0..gpu.mig_device_count()? {
            // the count is the highest possible one
            match gpu.mig_device_by_index(instance) {
                Ok(instance) => devices.push(one(&instance)?),
                Err(NvmlError::NotFound | NvmlError::InvalidArg) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(devices)
}
