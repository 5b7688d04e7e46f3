//! Flattened includes: every file's scope, every step and service under its full id. Unaware of nodes.

use std::collections::HashMap;

use crate::model::{Service, Step, StepRef, Workflow};

/// One workflow file in the include tree.
pub(super) struct Scope<'w> {
    pub(super) workflow: &'w Workflow,
    /// Empty, or ends with a dot.
    pub(super) prefix: String,
    pub(super) parent: Option<usize>,
}

/// A step in its scope.
pub(super) struct StepDef<'w> {
    pub(super) scope: usize,
    pub(super) step: &'w Step,
    pub(super) id: String,
}

/// A service in its scope.
pub(super) struct ServiceDef<'w> {
    pub(super) scope: usize,
    pub(super) service: &'w Service,
    pub(super) id: String,
}

/// The whole include tree, flat.
pub(super) struct Scopes<'w> {
    pub(super) scopes: Vec<Scope<'w>>,
    pub(super) steps: Vec<StepDef<'w>>,
    pub(super) services: Vec<ServiceDef<'w>>,
    by_id: HashMap<String, usize>,
    service_by_id: HashMap<String, usize>,
}

impl<'w> Scopes<'w> {
    pub(super) fn new(root: &'w Workflow) -> Self {
        let mut scopes = Self {
            scopes: Vec::new(),
            steps: Vec::new(),
            services: Vec::new(),
            by_id: HashMap::new(),
            service_by_id: HashMap::new(),
        };
        scopes.add(root, String::new(), None);
        for (index, def) in scopes.steps.iter().enumerate() {
            scopes.by_id.insert(def.id.clone(), index);
        }
        for (index, def) in scopes.services.iter().enumerate() {
            scopes.service_by_id.insert(def.id.clone(), index);
        }
        scopes
    }

    fn add(&mut self, workflow: &'w Workflow, prefix: String, parent: Option<usize>) {
        let scope = self.scopes.len();
        self.scopes.push(Scope { workflow, prefix: prefix.clone(), parent });
        for (id, step) in &workflow.steps {
            self.steps.push(StepDef { scope, step, id: format!("{prefix}{id}") });
        }
        for (id, service) in &workflow.services {
            self.services.push(ServiceDef { scope, service, id: format!("{prefix}{id}") });
        }
        for include in &workflow.includes {
            self.add(&include.workflow, format!("{prefix}{}.", include.prefix), Some(scope));
        }
    }

    /// The step that a reference in `scope` means.
    pub(super) fn step(&self, scope: usize, reference: &StepRef) -> Option<usize> {
        self.step_named(scope, &reference.path.join("."))
    }

    /// The step `id` (perhaps `prefix.id`) as named in `scope`.
    pub(super) fn step_named(&self, scope: usize, id: &str) -> Option<usize> {
        self.by_id.get(&format!("{}{id}", self.scopes[scope].prefix)).copied()
    }

    /// The service `id` as named in `scope`.
    pub(super) fn service(&self, scope: usize, id: &str) -> Option<usize> {
        self.service_by_id.get(&format!("{}{id}", self.scopes[scope].prefix)).copied()
    }
}
