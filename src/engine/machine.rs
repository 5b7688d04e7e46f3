//! The machine of a run: its devices as the run may lease them, and what of its hardware stands in the keys of measurements.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::options::RunOptions;
use super::plan::{PlanStatus, foresee};
use super::project::Project;
use super::run_locks::RunLocks;
use super::schedule::{Fleet, Lease, NoLocks, ServiceKind, Use, Wants};
use crate::error::{Error, Result};
use crate::event::{LeasedDevice, Sink};
use crate::exec::{self, Device, Found, worded};
use crate::graph::{Graph, Node, Selection};
use crate::model::{DeviceSpec, GpuDemand, Policy};

/// What a measurement depends on: processors and devices. `flow devices --json` prints it, `--hardware` reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Processors.
    pub cpu: Cpu,
    /// Devices in the order of their indices.
    pub devices: Vec<Device>,
}

/// Processors as far as they stand in keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// As the system names it.
    pub model: String,
    /// Those that this process may use.
    pub cores: usize,
}

impl Cpu {
    /// That of this machine.
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| {
            line.strip_prefix("model name").map(|rest| rest.trim_start_matches([' ', '\t', ':']))
        });
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self { model: model.unwrap_or("unknown").to_owned(), cores }
    }
}

/// Which machine keys and leases are about.
#[derive(Debug, Default)]
pub struct Machine {
    /// `--devices`; else what the workflow says, else `gpu:auto`.
    spec: Option<String>,
    /// `--hardware`: another machine's measurements are meant.
    described: Option<Hardware>,
    found: OnceLock<std::result::Result<Found, String>>,
    cpu: OnceLock<Cpu>,
}

impl Machine {
    /// By the options of the command line.
    ///
    /// # Errors
    /// `devices` names none, or `hardware` cannot be read.
    pub fn new(devices: Option<&str>, hardware: Option<&Path>) -> Result<Self> {
        if let Some(spec) = devices {
            DeviceSpec::parse(spec)
                .map_err(|message| Error::usage(format!("--devices: {message}")).hint(DeviceSpec::FORMS))?;
        }
        let described = hardware.map(Self::read).transpose()?;
        Ok(Self { spec: devices.map(str::to_owned), described, ..Self::default() })
    }

    fn read(path: &Path) -> Result<Hardware> {
        let text = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        serde_json::from_slice(&text).map_err(|e| {
            Error::usage(format!("{} describes no hardware: {e}", path.display()))
                .hint("flow devices --json prints what is expected, on the machine that is meant")
        })
    }

    /// What `flow devices` shows, and remarks on what was not found.
    ///
    /// # Errors
    /// The list names a device that is not there.
    pub fn hardware(&self) -> Result<(Hardware, Vec<String>)> {
        let found = self.found(None)?.clone();
        Ok((Hardware { cpu: Cpu::here(), devices: found.devices }, found.notes))
    }

    /// `default`: what the workflow says.
    fn found(&self, default: Option<&str>) -> Result<&Found> {
        let found = self.found.get_or_init(|| {
            let spec = self.spec.as_deref().or(default).unwrap_or("gpu:auto");
            exec::discover(&DeviceSpec::parse(spec)?, &|name| std::env::var(name).ok())
        });
        found.as_ref().map_err(|message| Error::environment(message.clone()))
    }
}

/// Whether devices are among them, of its own or of a service.
fn needs_devices(graph: &Graph, wants: &Wants) -> bool {
    let of_service = |one: &Use| {
        let service = graph.services.get(one.service);
        service.is_some_and(|service| service.gpu.is_some() || service.per_gpu || service.beside.is_some())
    };
    wants.own.is_some() || wants.uses.iter().any(of_service)
}

/// What a node leases while it runs.
pub(super) fn wants(node: &Node) -> Wants {
    let one = |service: &usize| Use {
        service: *service,
        whole: node.whole.contains(service),
        alone: node.policy == Policy::Sample,
    };
    Wants { own: node.resources.gpu.clone(), uses: node.services.iter().map(one).collect() }
}

impl Project {
    /// The same on a certain machine.
    #[must_use]
    pub fn on(mut self, machine: Machine) -> Self {
        self.machine = machine;
        self
    }

    fn found(&self) -> Result<&Found> {
        self.machine.found(self.graph.resources.devices.as_deref())
    }

    /// The devices that runs may lease.
    pub(super) fn devices(&self) -> Result<&[Device]> {
        Ok(&self.found()?.devices)
    }

    /// Those devices in their places in the list of all.
    pub(super) fn leased(&self, places: &[usize]) -> Vec<Device> {
        let devices = if places.is_empty() { &[] } else { self.devices().unwrap_or_default() };
        places.iter().filter_map(|at| devices.get(*at).cloned()).collect()
    }

    /// Devices and services, nothing leased; devices are looked for if one of `wants` needs one. What other runs lease is told to
    /// `sink`.
    pub(super) fn fleet(&self, mut wants: impl Iterator<Item = Wants>, sink: &Arc<dyn Sink>) -> Fleet {
        let graph = &self.graph;
        let needed = wants.any(|wants| needs_devices(graph, &wants));
        // why there are none is said by the nodes that need one
        let devices = if needed { self.devices().unwrap_or_default().to_vec() } else { Vec::new() };
        let locks = RunLocks::new(devices.clone(), Arc::clone(sink));
        Fleet::new(devices, graph.services.iter().map(ServiceKind::of).collect(), Box::new(locks))
    }

    /// A lease outside of a run, for as long as the fleet lives; `who` wants it.
    pub(super) fn lease(&self, who: &str, wants: &Wants, sink: &Arc<dyn Sink>) -> Result<(Fleet, Lease)> {
        let mut fleet = self.fleet(std::iter::once(wants.clone()), sink);
        if !fleet.fits_ever(wants) {
            return Err(lacking(&self.graph, who, wants, self.found()?));
        }
        let lease = fleet.take(wants);
        let lease = lease
            .ok_or_else(|| Error::environment(format!("the devices of {who} are leased by other runs")))?;
        Ok((fleet, lease))
    }

    /// Why a node that would run or validate cannot on this machine.
    pub(super) fn lacks(&self, node: &Node) -> Option<Error> {
        if self.machine.described.is_some() && node.policy == Policy::Sample {
            return Some(
                Error::step("would run: it was not measured on the hardware that --hardware describes")
                    .hint("measure it there, or leave --hardware out to measure it here"),
            );
        }
        self.lacks_devices(node)
    }

    fn lacks_devices(&self, node: &Node) -> Option<Error> {
        // what is measured elsewhere leases nothing here
        let elsewhere = self.machine.described.is_some() && node.policy == Policy::Sample;
        if elsewhere || (node.resources.gpu.is_none() && node.services.is_empty()) {
            return None;
        }
        let (graph, wants) = (&self.graph, wants(node));
        if !needs_devices(graph, &wants) {
            return None;
        }
        let found = match self.found() {
            Ok(found) => found,
            Err(error) => return Some(error),
        };
        let kinds = graph.services.iter().map(ServiceKind::of).collect();
        let fleet = Fleet::new(found.devices.clone(), kinds, Box::new(NoLocks));
        (!fleet.fits_ever(&wants)).then(|| lacking(graph, &node.id, &wants, found))
    }

    /// What of the hardware stands in the key of a measurement.
    ///
    /// # Errors
    /// No device fits, or devices of more than one model.
    pub(super) fn hardware(&self, node: &Node) -> Result<String> {
        let described = self.machine.described.as_ref();
        let cpu = match described {
            Some(described) => &described.cpu,
            None => self.machine.cpu.get_or_init(Cpu::here),
        };
        let cpu = format!("cpu {} x {}", cpu.model, cpu.cores);
        let wants = wants(node);
        if !needs_devices(&self.graph, &wants) {
            return Ok(join(vec![cpu], instances(&self.graph, &wants, &[])));
        }
        let devices = match described {
            Some(described) => &described.devices,
            None => self.devices()?,
        };
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (demand, count) in demands(&self.graph, &wants, devices) {
            let mut models: Vec<(&str, &str)> = Vec::new();
            for device in devices.iter().filter(|device| device.fits(&demand)) {
                let model = (device.model.as_str(), device.driver.as_str());
                if !models.contains(&model) {
                    models.push(model);
                }
            }
            match models.as_slice() {
                [model] => *counts.entry(*model).or_default() += count,
                [] if described.is_some() => {
                    let message =
                        format!("{} needs {}, and --hardware describes none", node.id, worded(&demand));
                    return Err(Error::environment(message));
                }
                [] => return Err(lacking(&self.graph, &node.id, &wants, self.found()?)),
                several => {
                    let names: Vec<&str> = several.iter().map(|(model, _)| *model).collect();
                    return Err(Error::environment(format!(
                        "{} measures on {}, and devices of more than one model would do: {}",
                        node.id,
                        worded(&demand),
                        names.join(", ")
                    ))
                    .hint("choose by \"resources\": {\"gpu\": {\"model\": \"...\"}}: results of different models are not one sample"));
                }
            }
        }
        let real = counts.keys().any(|(model, _)| *model != exec::VIRTUAL);
        let mut parts: Vec<String> = Vec::new();
        for ((model, driver), count) in counts {
            let driver = if driver.is_empty() { String::new() } else { format!(", driver {driver}") };
            parts.push(format!("gpu {model} x {count}{driver}"));
        }
        if !real {
            parts.push(cpu);
        }
        Ok(join(parts, instances(&self.graph, &wants, devices)))
    }
}

fn join(mut parts: Vec<String>, more: Vec<String>) -> String {
    parts.extend(more);
    parts.join("; ")
}

/// How many instances of each service a measurement is over, where it is over all of several: `4 instances of pods`.
fn instances(graph: &Graph, wants: &Wants, devices: &[Device]) -> Vec<String> {
    let of = |one: &Use| {
        let service = &graph.services[one.service];
        let host = service.beside.unwrap_or(one.service);
        let places = ServiceKind::of(&graph.services[host]).places_on(devices);
        (service, places * ServiceKind::of(service).replicas())
    };
    let whole = wants.uses.iter().filter(|one| one.whole).map(of);
    whole
        .filter(|(_, count)| *count > 1)
        .map(|(service, count)| format!("{count} instances of {}", service.id))
        .collect()
}

/// A leased device as the run record has it; `service`: whose instance has it.
pub(super) fn leased(device: &Device, service: Option<&str>) -> LeasedDevice {
    LeasedDevice {
        index: device.index,
        uuid: device.uuid.clone(),
        model: device.model.clone(),
        service: service.map(str::to_owned),
    }
}

/// Lets a process see the devices that it has, and no others; one that has none sees what flow sees.
pub(super) fn show_devices(env: &mut Vec<(String, String)>, devices: &[Device]) {
    if devices.is_empty() {
        return;
    }
    for (name, value) in exec::device_env(devices) {
        env.retain(|(known, _)| *known != name);
        env.push((name, value));
    }
}

/// The devices that a node and the instances it uses lease: of which kind, and how many.
fn demands(graph: &Graph, wants: &Wants, devices: &[Device]) -> Vec<(GpuDemand, usize)> {
    let mut demands: Vec<(GpuDemand, usize)> =
        wants.own.iter().map(|demand| (demand.clone(), demand.count as usize)).collect();
    let mut hosts: BTreeMap<usize, bool> = BTreeMap::new();
    for one in &wants.uses {
        let host = graph.services[one.service].beside.unwrap_or(one.service);
        *hosts.entry(host).or_default() |= one.whole;
    }
    for (host, whole) in hosts {
        let kind = ServiceKind::of(&graph.services[host]);
        if let Some(demand) = kind.demand() {
            let places = if whole { kind.places_on(devices) } else { 1 };
            demands.push((demand.clone(), demand.count as usize * places));
        }
    }
    demands
}

/// The error for one whose devices this machine does not have.
fn lacking(graph: &Graph, who: &str, wants: &Wants, found: &Found) -> Error {
    let asked: Vec<String> = demands(graph, wants, &found.devices)
        .into_iter()
        .map(|(demand, count)| worded(&GpuDemand { count: count as u32, ..demand }))
        .collect();
    let mut models: BTreeMap<String, usize> = BTreeMap::new();
    for device in &found.devices {
        let memory =
            if device.memory == 0 { String::new() } else { format!(" of {} MiB", device.memory >> 20) };
        *models.entry(format!("{}{memory}", device.model)).or_default() += 1;
    }
    let there: Vec<String> = models.into_iter().map(|(model, count)| format!("{count} x {model}")).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    let asked = asked.join(" and ");
    let mut error = Error::environment(format!("{who} leases {asked}; there are: {there}"));
    error.hints.extend(found.notes.iter().cloned());
    error.hint(
        "--devices gpu:N gives N virtual ones, for a try without a GPU; flow devices shows what there is",
    )
}

/// What can never be leased is an error before anything starts, if it would be needed.
pub(super) fn check_leases(project: &Project, options: &RunOptions, selection: &Selection) -> Result<()> {
    let mut lacking = selection.nodes.iter().filter_map(|ix| {
        let error = project.lacks_devices(&project.graph.nodes[ix])?;
        Some((ix, error))
    });
    let Some(first) = lacking.next() else { return Ok(()) };
    let lacking: Vec<_> = std::iter::once(first).chain(lacking).collect();
    let foreseen = foresee(project, options, selection);
    // whether the others run shows when what they take is made
    let needed = lacking.into_iter().find(|(ix, _)| foreseen[*ix].status == Some(PlanStatus::WouldFail));
    needed.map_or(Ok(()), |(_, error)| Err(error))
}
