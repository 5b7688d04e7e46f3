//! The services of a run as the coordinator sees them: ended when nobody needs them, dead ones noticed, their devices told. Unaware of
//! processes.

use super::Coordinator;
use crate::engine::machine::leased;
use crate::engine::schedule::Lease;
use crate::engine::services;
use crate::event::LeasedDevice;
use crate::graph::{NodeIx, ServiceIx};

/// An instance that was ended: its service, its number, and whether it had ended by itself.
pub(super) type Ended = (ServiceIx, usize, bool);

impl<'s> Coordinator<'s> {
    /// Ends the instances that the scheduler wants ended, each on a thread of its own.
    pub(super) fn end_instances<'scope>(&mut self, scope: &'scope std::thread::Scope<'scope, '_>)
    where
        's: 'scope,
    {
        for (service, instance) in self.scheduler.take_ends() {
            let (session, ended) = (self.session, self.ended.0.clone());
            scope.spawn(move || {
                let dead = session.services.stop_instance(session, service, instance);
                // the receiver is gone only if the run is over
                let _ = ended.send((service, instance, dead));
            });
        }
    }

    /// Services that nobody will use any more are ended, those that need others first.
    pub(super) fn retire_unused(&mut self) {
        for service in 0..self.service_users.len() {
            if self.service_users[service] == 0 {
                self.scheduler.retire(service);
            }
        }
    }

    /// What died while nobody used it is not given to the next one.
    pub(super) fn watch_idle_instances(&mut self) {
        for (service, instance) in self.scheduler.idle_instances() {
            if self.session.services.is_dead(service, instance) {
                self.session.services.death(self.session, service, instance);
                self.scheduler.instance_died(service, instance);
            }
        }
    }

    /// Instances of services that a running node uses and that are dead.
    pub(super) fn dead_instances(&self, ix: NodeIx) -> Vec<(ServiceIx, usize)> {
        let services = &self.session.services;
        let seats = self.scheduler.seats(ix);
        seats.filter(|(service, instance)| services.is_dead(*service, *instance)).collect()
    }

    /// The devices of a node and of the instances it uses.
    pub(super) fn leased(&self, lease: &Lease) -> Vec<LeasedDevice> {
        let project = &self.session.project;
        let of = |places: &[usize], service: Option<&str>| -> Vec<LeasedDevice> {
            project.leased(places).iter().map(|device| leased(device, service)).collect()
        };
        let mut all = of(&lease.devices, None);
        for (service, seats) in &lease.seats {
            for seat in seats {
                all.extend(of(&seat.devices, Some(&services::name(self.session, *service, seat.instance))));
            }
        }
        all
    }
}
