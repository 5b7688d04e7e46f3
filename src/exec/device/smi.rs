//! Devices as `nvidia-smi` prints them, where its library cannot be had. Unaware of masks.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Device;
use crate::base::files::Stat;

/// A driver in trouble makes it wait for ever.
const LIMIT: Duration = Duration::from_secs(10);
const QUERY: &str = "--query-gpu=index,uuid,name,memory.total,driver_version,mig.mode.current";

/// All devices; of a GPU that is cut into MIG instances, those. `path`: where the program is looked for.
///
/// # Errors
/// In words: there is no such program, or it does not answer.
pub(super) fn devices(path: Option<&str>) -> Result<Vec<Device>, String> {
    let program = path
        .into_iter()
        .flat_map(std::env::split_paths)
        .map(|dir| dir.join("nvidia-smi"))
        .find(|program| Stat::following(program).is_ok_and(|stat| stat.executable()))
        .ok_or("there is no nvidia-smi")?;
    let table = ask(&program, &[QUERY, "--format=csv,noheader,nounits"])?;
    let (gpus, cut) = parse_table(&table)?;
    if cut.is_empty() {
        return Ok(gpus);
    }
    let list = ask(&program, &["-L"])?;
    let mut devices: Vec<Device> = gpus.into_iter().filter(|gpu| !cut.contains(&gpu.index)).collect();
    devices.extend(parse_instances(&list, &table)?);
    Ok(devices)
}

fn ask(program: &PathBuf, args: &[&str]) -> Result<String, String> {
    let failed = |why: String| format!("{}: {why}", program.display());
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let mut output = child.stdout.take().ok_or_else(|| failed("has no output".to_owned()))?;
    // a child of it may keep its output open for ever: the thread is not waited for
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = sender.send(output.read_to_string(&mut text).map(|_| text));
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|e| failed(e.to_string()))? {
            Some(status) => break status,
            None if begun.elapsed() > LIMIT => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!("did not answer within {} s", LIMIT.as_secs())));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let left = LIMIT.saturating_sub(begun.elapsed());
    let text = receiver.recv_timeout(left).map_err(|_| failed("does not end its output".to_owned()))?;
    let text = text.map_err(|e| failed(format!("its output could not be read: {e}")))?;
    match status.success() {
        true => Ok(text),
        false => Err(failed(format!("{status}: {}", text.lines().next().unwrap_or("")))),
    }
}

/// GPUs, and the indices of those that are cut into instances.
fn parse_table(table: &str) -> Result<(Vec<Device>, Vec<u32>), String> {
    let (mut gpus, mut cut) = (Vec::new(), Vec::new());
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let wrong = || {
            format!(
                "nvidia-smi printed '{line}', expected six fields: index, uuid, name, MiB, driver, MIG mode"
            )
        };
        let [index, uuid, model, memory, driver, mig] = fields[..] else { return Err(wrong()) };
        let index = index.parse().map_err(|_| wrong())?;
        // a GPU whose memory is the machine's says [N/A]
        let memory = memory.parse::<u64>().map_or(0, |mebibytes| mebibytes << 20);
        if mig == "Enabled" {
            cut.push(index);
        }
        let (uuid, model, driver) = (uuid.to_owned(), model.to_owned(), driver.to_owned());
        gpus.push(Device { index, uuid, model, memory, driver });
    }
    Ok((gpus, cut))
}

/// MIG instances of a list like
/// `GPU 0: NVIDIA A100 (UUID: GPU-1)` and below `  MIG 1g.5gb     Device  0: (UUID: MIG-2)`.
fn parse_instances(list: &str, table: &str) -> Result<Vec<Device>, String> {
    let (gpus, cut) = parse_table(table)?;
    let mut of: Option<&Device> = None;
    let mut found = Vec::new();
    for line in list.lines() {
        if let Some(rest) = line.strip_prefix("GPU ") {
            let index = rest.split(':').next().and_then(|index| index.trim().parse::<u32>().ok());
            of = gpus.iter().find(|gpu| Some(gpu.index) == index && cut.contains(&gpu.index));
            continue;
        }
        let (Some(gpu), Some(rest)) = (of, line.trim_start().strip_prefix("MIG ")) else { continue };
        let wrong =
            || format!("nvidia-smi -L printed '{line}', expected MIG PROFILE Device N: (UUID: MIG-...)");
        let profile = rest.split_whitespace().next().ok_or_else(wrong)?;
        let uuid = rest.split("UUID: ").nth(1).and_then(|rest| rest.split(')').next()).ok_or_else(wrong)?;
        let gibibytes = profile
            .split('.')
            .find_map(|part| part.strip_suffix("gb")?.parse::<u64>().ok())
            .ok_or_else(wrong)?;
        found.push(Device {
            uuid: uuid.to_owned(),
            model: format!("{} MIG {profile}", gpu.model),
            memory: gibibytes << 30,
            ..gpu.clone()
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "0, GPU-a, NVIDIA A100-SXM4-40GB, 40960, 550.54.15, Enabled\n1, GPU-b, NVIDIA H200, 143771, 550.54.15, Disabled\n2, GPU-c, NVIDIA GB10, [N/A], 580.1, [N/A]\n";

    #[test]
    fn gpus_of_a_table() {
        let (gpus, cut) = parse_table(TABLE).unwrap();
        assert_eq!(cut, [0]);
        let short: Vec<_> = gpus.iter().map(|gpu| (gpu.index, gpu.uuid.as_str(), gpu.memory >> 20)).collect();
        assert_eq!(short, [(0, "GPU-a", 40960), (1, "GPU-b", 143_771), (2, "GPU-c", 0)]);
        assert_eq!((gpus[1].model.as_str(), gpus[1].driver.as_str()), ("NVIDIA H200", "550.54.15"));
        let error = parse_table("No devices were found\n").unwrap_err();
        assert!(error.contains("'No devices were found'"), "{error}");
    }

    #[test]
    fn instances_of_a_list() {
        let list = "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-a)\n  MIG 1g.5gb      Device  0: (UUID: MIG-x)\n  MIG 3g.20gb     Device  1: (UUID: MIG-y)\nGPU 1: NVIDIA H200 (UUID: GPU-b)\n";
        let found = parse_instances(list, TABLE).unwrap();
        let short: Vec<_> = found
            .iter()
            .map(|mig| (mig.index, mig.uuid.as_str(), mig.model.as_str(), mig.memory >> 30))
            .collect();
        assert_eq!(
            short,
            [
                (0, "MIG-x", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 5),
                (0, "MIG-y", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", 20)
            ]
        );
    }
}
