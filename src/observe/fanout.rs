//! One sink for the engine: stamps each event with its time and hands it to every reader. Unaware of what they do with it.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::printer::lock;
use crate::event::{Event, Sink, Stamped};

/// A reader of the event stream; called for one event at a time, in the order of their stamps.
pub trait Observer: Send + Sync {
    /// Takes one event.
    fn observe(&self, stamped: &Stamped);
}

/// Stamps events and forwards them. Order and stamps are the same for every reader.
pub struct Fanout {
    started: Instant,
    observers: Vec<Arc<dyn Observer>>,
    order: Mutex<()>,
}

impl Fanout {
    /// A sink whose clock starts now.
    pub fn new(observers: Vec<Arc<dyn Observer>>) -> Self {
        Self { started: Instant::now(), observers, order: Mutex::new(()) }
    }
}

impl Sink for Fanout {
    fn emit(&self, event: Event) {
        let _order = lock(&self.order);
        let micros = self.started.elapsed().as_micros();
        let stamped = Stamped { t: micros as f64 / 1e6, event };
        for observer in &self.observers {
            observer.observe(&stamped);
        }
    }

    fn begun(&self) -> Instant {
        self.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Times(Mutex<Vec<f64>>);

    impl Observer for Times {
        fn observe(&self, stamped: &Stamped) {
            lock(&self.0).push(stamped.t);
        }
    }

    #[test]
    fn every_reader_sees_the_same_events_in_the_order_of_their_stamps() {
        let (a, b) = (Arc::new(Times::default()), Arc::new(Times::default()));
        let fanout = Fanout::new(vec![a.clone(), b.clone()]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..50 {
                        fanout.emit(Event::Note { message: n.to_string() });
                    }
                });
            }
        });
        let seen = lock(&a.0).clone();
        assert_eq!(seen.len(), 200);
        assert!(seen.is_sorted());
        assert_eq!(seen, *lock(&b.0));
    }
}
