//! Built-in simulators: services that run as processes of their own (`flow __sim NAME JSON`), so that every workflow runs without a network.

use crate::api::Catalog;

/// Adds the simulators.
pub fn register(_catalog: &mut Catalog) {}
