//! What is leased when, on small fleets and on random ones.

use std::sync::{Arc, Mutex};

use super::wants::Places;
use super::*;

fn device(index: u32, model: &str, memory: u64) -> Device {
    Device { index, uuid: format!("GPU-{index}"), model: model.to_owned(), memory, driver: "1".to_owned() }
}

fn same(count: u32) -> Vec<Device> {
    (0..count).map(|index| device(index, "M", 80)).collect()
}

fn gpus(count: u32) -> GpuDemand {
    GpuDemand { count, mem: 0, model: None }
}

fn own(demand: GpuDemand) -> Wants {
    Wants { own: Some(demand), uses: Vec::new() }
}

fn uses(service: ServiceIx, whole: bool, alone: bool) -> Wants {
    Wants { own: None, uses: vec![Use { service, whole, alone }] }
}

fn one(service: ServiceIx) -> Wants {
    uses(service, false, false)
}

fn kind(demand: Option<GpuDemand>, places: Places, replicas: usize) -> ServiceKind {
    ServiceKind { demand, places, replicas, beside: None, uses: Vec::new() }
}

fn per_gpu() -> ServiceKind {
    kind(Some(gpus(1)), Places::EachDevice, 1)
}

fn fleet(devices: Vec<Device>, kinds: Vec<ServiceKind>) -> Fleet {
    Fleet::new(devices, kinds, Box::new(NoLocks))
}

/// Leases it, after what has to be ended for it has ended; gives what was ended.
fn take_in_the_end(fleet: &mut Fleet, wants: &Wants) -> (Option<Lease>, Vec<(ServiceIx, usize)>) {
    if let Some(lease) = fleet.take(wants) {
        return (Some(lease), Vec::new());
    }
    let ends = fleet.make_room(wants);
    assert!(ends.is_empty() || fleet.take(wants).is_none(), "leased before it had ended");
    assert!(fleet.make_room(wants).is_empty(), "what is being ended is enough");
    for (service, instance) in &ends {
        fleet.ended(*service, *instance, false);
    }
    (fleet.take(wants), ends)
}

fn seat(lease: &Option<Lease>, service: ServiceIx) -> (usize, Vec<usize>) {
    let seat = &lease.as_ref().unwrap().seats[&service][0];
    (seat.instance, seat.devices.clone())
}

#[test]
fn devices_are_leased_once_and_given_back() {
    let mut fleet = fleet(same(2), vec![]);
    let first = fleet.take(&own(gpus(1))).unwrap();
    let second = fleet.take(&own(gpus(1))).unwrap();
    assert_eq!((first.devices.as_slice(), second.devices.as_slice()), (&[0][..], &[1][..]));
    assert!(fleet.take(&own(gpus(1))).is_none() && !fleet.could(&own(gpus(1))));
    fleet.give(&first);
    assert!(fleet.take(&own(gpus(2))).is_none());
    fleet.give(&second);
    assert_eq!(fleet.take(&own(gpus(2))).unwrap().devices, [0, 1]);
    assert!(fleet.fits_ever(&own(gpus(2))) && !fleet.fits_ever(&own(gpus(3))));
}

#[test]
fn small_demands_leave_the_large_devices_to_others() {
    let mut fleet = fleet(vec![device(0, "Big", 80), device(1, "Small", 24), device(2, "Big", 80)], vec![]);
    let want = |mem, model: Option<&str>| own(GpuDemand { count: 1, mem, model: model.map(str::to_owned) });
    assert_eq!(fleet.take(&want(0, None)).unwrap().devices, [1]);
    assert_eq!(fleet.take(&want(40, None)).unwrap().devices, [0]);
    assert!(fleet.take(&want(0, Some("small"))).is_none());
    assert_eq!(fleet.take(&want(0, Some("big"))).unwrap().devices, [2]);
    assert!(!fleet.fits_ever(&want(81, None)) && !fleet.fits_ever(&want(0, Some("Other"))));
}

#[test]
fn nodes_spread_over_instances_and_share_when_there_are_no_more() {
    let mut fleet = fleet(same(2), vec![per_gpu()]);
    let (a, b, c) = (fleet.take(&one(0)), fleet.take(&one(0)), fleet.take(&one(0)));
    assert_eq!((seat(&a, 0), seat(&b, 0), seat(&c, 0)), ((0, vec![0]), (1, vec![1]), (0, vec![0])));
    fleet.give(&b.unwrap());
    assert_eq!(seat(&fleet.take(&one(0)), 0), (1, vec![1]), "an idle instance comes before one that is used");
    // instances that nobody uses keep their devices until these are wanted
    fleet.give(&a.unwrap());
    fleet.give(&c.unwrap());
    let (owner, ends) = take_in_the_end(&mut fleet, &own(gpus(1)));
    assert_eq!((owner.unwrap().devices, ends), (vec![0], vec![(0, 0)]));
    assert!(fleet.make_room(&own(gpus(1))).is_empty());
    assert!(fleet.take(&own(gpus(1))).is_none(), "the other instance is used");
}

#[test]
fn one_that_measures_has_its_instance_alone() {
    let mut fleet = fleet(same(2), vec![per_gpu()]);
    let alone = || uses(0, false, true);
    let first = fleet.take(&alone());
    let shared = fleet.take(&one(0));
    assert_eq!((seat(&first, 0).0, seat(&shared, 0).0), (0, 1));
    assert!(fleet.take(&alone()).is_none(), "one is measured, the other is used");
    assert_eq!(seat(&fleet.take(&one(0)), 0).0, 1);
    fleet.give(&first.unwrap());
    assert_eq!(seat(&fleet.take(&alone()), 0).0, 0);
    assert!(fleet.take(&uses(0, true, true)).is_none());
}

#[test]
fn all_instances_at_once() {
    let mut fleet = fleet(same(4), vec![kind(Some(gpus(1)), Places::Count(2), 2)]);
    let lease = fleet.take(&uses(0, true, true)).unwrap();
    let seats: Vec<_> = lease.seats[&0].iter().map(|seat| (seat.instance, seat.devices.clone())).collect();
    assert_eq!(seats, [(0, vec![0]), (1, vec![0]), (2, vec![1]), (3, vec![1])]);
    assert!(fleet.take(&one(0)).is_none());
    fleet.give(&lease);
    assert_eq!(fleet.retire(0), [(0, 0), (0, 1), (0, 2), (0, 3)]);
    assert!(fleet.take(&one(0)).is_none(), "what is being ended is not used");
    assert_eq!(fleet.retire(0), []);
    (0..4).for_each(|instance| fleet.ended(0, instance, false));
    fleet.take(&own(gpus(4))).unwrap();
    let too_many = kind(Some(gpus(1)), Places::Count(5), 1);
    let fleet = super::Fleet::new(same(4), vec![too_many], Box::new(NoLocks));
    assert!(fleet.fits_ever(&one(0)) && !fleet.fits_ever(&uses(0, true, false)));
}

#[test]
fn a_node_and_its_service_get_devices_together_or_not_at_all() {
    let mut fleet = fleet(same(2), vec![per_gpu()]);
    let both = || Wants { own: Some(gpus(1)), ..one(0) };
    let first = fleet.take(&both());
    assert_eq!((first.as_ref().unwrap().devices.clone(), seat(&first, 0)), (vec![0], (0, vec![1])));
    assert!(fleet.take(&both()).is_none());
    assert!(!fleet.fits_ever(&Wants { own: Some(gpus(2)), ..one(0) }));
}

#[test]
fn a_guest_is_on_the_devices_of_its_host() {
    let guest = ServiceKind { beside: Some(0), ..kind(None, Places::Count(1), 1) };
    let mut fleet = fleet(same(2), vec![per_gpu(), guest]);
    let both = || Wants { own: None, uses: [one(1).uses, one(0).uses].concat() };
    let (first, second) = (fleet.take(&both()), fleet.take(&both()));
    assert_eq!((seat(&first, 0), seat(&first, 1)), ((0, vec![0]), (0, vec![0])));
    assert_eq!((seat(&second, 0), seat(&second, 1)), ((1, vec![1]), (1, vec![1])));
    fleet.give(&first.unwrap());
    assert_eq!(fleet.retire(0), [(0, 0)]);
    fleet.ended(0, 0, false);
    assert!(!fleet.could(&own(gpus(1))), "the guest is still up");
    let (owner, ends) = take_in_the_end(&mut fleet, &own(gpus(1)));
    assert_eq!((owner.unwrap().devices, ends), (vec![0], vec![(1, 0)]));
}

#[test]
fn what_died_is_not_started_again_and_holds_no_device() {
    let mut fleet = fleet(same(1), vec![per_gpu()]);
    let lease = fleet.take(&one(0)).unwrap();
    fleet.died(0, 0);
    assert!(!fleet.could(&own(gpus(1))), "its user has not noticed yet");
    fleet.give(&lease);
    fleet.died(0, 0);
    let next = fleet.take(&one(0));
    assert_eq!(seat(&next, 0), (0, vec![]), "who comes now is told of its death");
    assert!(fleet.take(&own(gpus(1))).is_some());
    // as long as another is alive, it is waited for
    let mut fleet = super::Fleet::new(same(2), vec![per_gpu()], Box::new(NoLocks));
    let (dies, lives) =
        (fleet.take(&uses(0, false, true)).unwrap(), fleet.take(&uses(0, false, true)).unwrap());
    fleet.died(0, 0);
    fleet.give(&dies);
    assert!(fleet.take(&uses(0, false, true)).is_none());
    fleet.give(&lives);
    assert_eq!(seat(&fleet.take(&uses(0, false, true)), 0), (1, vec![1]));
    // one that had died before it was to be ended is dead, too
    let mut fleet = super::Fleet::new(same(1), vec![per_gpu()], Box::new(NoLocks));
    let user = fleet.take(&one(0)).unwrap();
    fleet.give(&user);
    assert_eq!(fleet.retire(0), [(0, 0)]);
    fleet.ended(0, 0, true);
    assert_eq!(seat(&fleet.take(&one(0)), 0), (0, vec![]));
}

#[test]
fn what_needs_a_service_is_ended_with_it_and_with_its_guests() {
    // D refers to S and has a device, G is D's guest
    let s = kind(Some(gpus(1)), Places::Count(1), 1);
    let d = ServiceKind { uses: vec![0], ..s.clone() };
    let g = ServiceKind { beside: Some(1), ..kind(None, Places::Count(1), 1) };
    let mut fleet = fleet(same(2), vec![s, d, g]);
    let both = Wants { own: None, uses: [one(0).uses, one(1).uses].concat() };
    let user = fleet.take(&both).unwrap();
    let guest = fleet.take(&one(2)).unwrap();
    fleet.give(&user);
    assert!(fleet.make_room(&own(gpus(1))).is_empty(), "a guest of what needs it is used");
    assert_eq!(fleet.retire(0), [], "what needs it is up");
    fleet.give(&guest);
    let (owner, ends) = take_in_the_end(&mut fleet, &own(gpus(2)));
    assert_eq!(owner.unwrap().devices, [0, 1]);
    assert_eq!(ends, [(2, 0), (1, 0), (0, 0)]);
}

#[test]
fn the_choice_of_one_leaves_the_other_what_it_needs() {
    let models = || vec![device(0, "A100-PCIE-40GB", 40), device(1, "A100-SXM4-80GB", 80)];
    let model = |name: &str| GpuDemand { model: Some(name.to_owned()), ..gpus(1) };
    let mut fleet = fleet(models(), vec![kind(Some(model("A100-PCIE")), Places::Count(1), 1)]);
    let lease = fleet.take(&Wants { own: Some(model("A100")), ..one(0) }).unwrap();
    assert_eq!((lease.devices.as_slice(), lease.seats[&0][0].devices.as_slice()), (&[1][..], &[0][..]));
}

#[derive(Debug, Clone, Default)]
struct Others(Arc<Mutex<(BTreeSet<usize>, Vec<usize>)>>);

impl Locks for Others {
    fn take(&mut self, what: &Shared) -> bool {
        let Shared::Device(device) = *what else { panic!("{what:?}") };
        let mut state = self.0.lock().unwrap();
        let free = !state.0.contains(&device);
        if free {
            state.1.push(device);
        }
        free
    }

    fn give(&mut self, what: &Shared) {
        let Shared::Device(device) = *what else { panic!("{what:?}") };
        self.0.lock().unwrap().1.retain(|held| *held != device);
    }
}

#[test]
fn a_device_of_another_run_is_passed_over_and_locks_follow_leases() {
    let others = Others::default();
    others.0.lock().unwrap().0.insert(0);
    let held = || others.0.lock().unwrap().1.clone();
    let mut fleet = Fleet::new(same(3), vec![per_gpu()], Box::new(others.clone()));
    let lease = fleet.take(&own(gpus(1))).unwrap();
    assert_eq!((lease.devices.as_slice(), held()), (&[1][..], vec![1]));
    assert!(fleet.take(&own(gpus(2))).is_none());
    assert_eq!(held(), [1], "what was locked for nothing is free again");
    let user = fleet.take(&one(0)).unwrap();
    assert_eq!(held(), [1, 2]);
    fleet.give(&lease);
    fleet.give(&user);
    assert_eq!(held(), [2], "the instance is still up");
    let (owner, ends) = take_in_the_end(&mut fleet, &own(gpus(2)));
    assert_eq!((owner.unwrap().devices, ends, held()), (vec![1, 2], vec![(0, 0)], vec![1, 2]));
}

/// Random takes, gives, deaths and stops: no device has two holders, what fits ever is leased once everything is idle.
#[test]
fn nothing_is_held_twice_and_nobody_waits_for_ever() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let devices: Vec<Device> = (0..rng.u32(1..6))
            .map(|index| device(index, if rng.bool() { "A" } else { "B" }, if rng.bool() { 24 } else { 80 }))
            .collect();
        let demand = |rng: &mut fastrand::Rng| GpuDemand {
            count: rng.u32(1..3),
            mem: if rng.u8(..) < 64 { 80 } else { 0 },
            model: (rng.u8(..) < 64).then(|| "A".to_owned()),
        };
        let kinds: Vec<ServiceKind> = (0..3)
            .map(|at| match rng.u8(..4) {
                0 => kind(None, Places::Count(1), rng.usize(1..3)),
                1 => kind(Some(demand(&mut rng)), Places::Count(rng.usize(1..3)), 1),
                2 if at > 0 => {
                    ServiceKind { beside: Some(0), ..kind(None, Places::Count(1), rng.usize(1..3)) }
                }
                _ => kind(
                    Some(GpuDemand { count: 1, ..demand(&mut rng) }),
                    Places::EachDevice,
                    rng.usize(1..3),
                ),
            })
            .collect();
        // a guest needs a host with devices
        let kinds: Vec<ServiceKind> = match kinds[0].demand {
            Some(_) => kinds,
            None => kinds.into_iter().map(|kind| ServiceKind { beside: None, ..kind }).collect(),
        };
        let mut fleet = fleet(devices, kinds);
        let mut held: Vec<Lease> = Vec::new();
        let mut ending: Vec<(ServiceIx, usize)> = Vec::new();
        for _ in 0..60 {
            let wants = Wants {
                own: rng.bool().then(|| demand(&mut rng)),
                uses: (0..3)
                    .map(|service| Use { service, whole: rng.u8(..5) == 0, alone: rng.bool() })
                    .filter(|one| !(seed + one.service as u64).is_multiple_of(3))
                    .collect(),
            };
            let could = fleet.could(&wants);
            match fleet.take(&wants) {
                Some(lease) => {
                    assert!(could && fleet.fits_ever(&wants), "{seed}");
                    held.push(lease);
                }
                None => {
                    assert!(!could, "{seed}");
                    ending.extend(fleet.make_room(&wants));
                }
            }
            while !ending.is_empty() && rng.bool() {
                let (service, instance) = ending.swap_remove(rng.usize(..ending.len()));
                fleet.ended(service, instance, false);
            }
            let mut owned: Vec<usize> = held.iter().flat_map(|lease| lease.devices.clone()).collect();
            for places in &fleet.state.places {
                owned.extend(places.iter().flat_map(|place| place.devices.clone()));
            }
            let all = owned.len();
            owned.sort_unstable();
            owned.dedup();
            assert_eq!(owned.len(), all, "{seed}: a device has two holders");
            assert!(owned.iter().all(|at| fleet.state.taken[*at]), "{seed}: a held device counts as free");
            assert_eq!(
                fleet.state.taken.iter().filter(|taken| **taken).count(),
                all,
                "{seed}: a device is lost"
            );
            while !held.is_empty() && rng.bool() {
                let lease = held.swap_remove(rng.usize(..held.len()));
                fleet.give(&lease);
            }
            if rng.u8(..10) == 0 {
                ending.extend(fleet.retire(rng.usize(..3)));
            }
        }
        held.drain(..).for_each(|lease| fleet.give(&lease));
        ending.drain(..).for_each(|(service, instance)| fleet.ended(service, instance, false));
        for _ in 0..20 {
            let wants = Wants { own: Some(demand(&mut rng)), ..uses(rng.usize(..3), rng.bool(), rng.bool()) };
            if fleet.fits_ever(&wants) {
                let (lease, _) = take_in_the_end(&mut fleet, &wants);
                let lease = lease.unwrap_or_else(|| panic!("{seed}: {wants:?} waits for ever"));
                fleet.give(&lease);
            }
        }
    }
}
