//! Whether others added results to a cache. Unaware of what they are.
//!
//! Whoever holds a key asks whether another process made its result since it first looked. The length of a file answers that without
//! asking the index: each store adds a byte before and after each transaction that adds results. Before, so that nothing is missed if
//! it is killed when it has committed; after, for those who look in between.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::place;
use crate::{Error, Result};

/// The file of one cache, and what this store added to it.
pub(super) struct Generation {
    /// How many bytes; `None` once one could not be added.
    own: Mutex<Option<u64>>,
    file: File,
}

impl Generation {
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let path = cache.join("generation");
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|e| place::not_writable(Error::io("open", &path, &e), &e))?;
        Ok(Self { own: Mutex::new(Some(0)), file })
    }

    /// Says that results are about to be added, or were.
    pub(super) fn raise(&self) -> io::Result<()> {
        let mut own = self.own();
        match (&self.file).write_all(&[0]) {
            Ok(()) => {
                *own = own.map(|own| own + 1);
                Ok(())
            }
            Err(e) => {
                *own = None;
                Err(e)
            }
        }
    }

    /// A number that changes when others add results, and only then; `None` if that cannot be told.
    pub(super) fn others(&self) -> Option<u64> {
        let own = self.own();
        let length = self.file.metadata().ok()?.len();
        own.map(|own| length.wrapping_sub(own))
    }

    fn own(&self) -> MutexGuard<'_, Option<u64>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_add_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Generation::open(dir.path()).unwrap(), Generation::open(dir.path()).unwrap());
        let before = one.others();
        one.raise().unwrap();
        assert_eq!(one.others(), before);
        assert_ne!(two.others(), before);
        let before = (one.others(), two.others());
        two.raise().unwrap();
        assert_ne!(one.others(), before.0);
        assert_eq!(two.others(), before.1);
    }
}
