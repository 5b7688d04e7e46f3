//! The process groups of a run in a file without a name that the guard shares: told of by one small write each, read only once flow is
//! gone. Unaware of what the groups are.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// Bytes of one entry: the id of a group, or zeros. So few are written whole or not at all.
const ENTRY: usize = 4;

/// The groups of a run, as flow keeps them.
#[derive(Debug)]
pub(super) struct Groups {
    file: File,
    places: Mutex<Places>,
}

/// Where in the file each group is.
#[derive(Debug, Default)]
struct Places {
    of: HashMap<u32, u64>,
    free: Vec<u64>,
}

impl Groups {
    /// None yet.
    pub(super) fn new() -> std::io::Result<Self> {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let file = File::from(memfd_create(c"flow-groups", MFdFlags::MFD_CLOEXEC)?);
        Ok(Self { file, places: Mutex::default() })
    }

    /// The file, for the guard.
    pub(super) fn share(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }

    /// Adds one.
    pub(super) fn add(&self, group: u32) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.free.pop().unwrap_or(places.of.len() as u64);
        places.of.insert(group, place);
        self.write(place, group);
    }

    /// Takes one out.
    pub(super) fn remove(&self, group: u32) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.of.remove(&group) {
            self.write(place, 0);
            places.free.push(place);
        }
    }

    /// Whether it is one of them.
    pub(super) fn has(&self, group: u32) -> bool {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).of.contains_key(&group)
    }

    /// Memory may be short: then the guard still finds the processes by the mark of the run.
    fn write(&self, place: u64, group: u32) {
        let _ = self.file.write_all_at(&group.to_ne_bytes(), place * ENTRY as u64);
    }
}

/// What the file holds, for the guard.
pub(super) fn read(file: impl AsFd) -> BTreeSet<u32> {
    let Ok(file) = file.as_fd().try_clone_to_owned().map(File::from) else { return BTreeSet::new() };
    let Ok(size) = file.metadata().map(|meta| meta.len()) else { return BTreeSet::new() };
    let mut bytes = Vec::new();
    if FromStart(&file, 0).take(size).read_to_end(&mut bytes).is_err() {
        return BTreeSet::new();
    }
    let (entries, _) = bytes.as_chunks::<ENTRY>();
    entries.iter().map(|entry| u32::from_ne_bytes(*entry)).filter(|group| *group != 0).collect()
}

/// Reads without the position that both processes share.
struct FromStart<'f>(&'f File, u64);

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read_at(buffer, self.1)?;
        self.1 += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_gone_and_its_place_is_used_again() {
        let groups = Groups::new().unwrap();
        for group in [7, 8, 9] {
            groups.add(group);
        }
        assert!(groups.has(8));
        groups.remove(8);
        assert!(!groups.has(8));
        groups.remove(1);
        assert_eq!(read(groups.share().unwrap()), [7, 9].into());
        groups.add(u32::MAX);
        assert_eq!(read(&groups.file), [7, 9, u32::MAX].into());
        assert_eq!(groups.file.metadata().unwrap().len(), 3 * ENTRY as u64);
    }
}
