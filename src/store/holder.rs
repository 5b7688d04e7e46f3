//! Who holds a lock, as far as `/proc` tells. Unaware of what is locked; a wrong or missing answer only changes a message.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

/// The process that holds a `flock` on `file`.
pub(super) fn of_flock(file: &File) -> Option<u32> {
    let meta = file.metadata().ok()?;
    let device = format!("{:02x}:{:02x}", major(meta.dev()), minor(meta.dev()));
    flock_holder(&fs::read_to_string("/proc/locks").ok()?, &device, meta.ino())
}

/// The process that holds the byte at `offset` of the file at `path` by an open file description lock. The kernel names no
/// process for those, so the descriptors of all processes that may be looked at are searched.
pub(super) fn of_byte(path: &Path, offset: i64) -> Option<u32> {
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            if fs::read_link(descriptor.path()).is_ok_and(|target| target == path)
                && fs::read_to_string(process.path().join("fdinfo").join(descriptor.file_name()))
                    .is_ok_and(|info| holds_byte(&info, offset))
            {
                return Some(pid);
            }
        }
    }
    None
}

/// Finds `N: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`. Some file systems show another device than `stat` does;
/// then the inode alone decides, if only one lock has it.
fn flock_holder(locks: &str, device: &str, inode: u64) -> Option<u32> {
    let mut by_inode = Vec::new();
    for line in locks.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = words[..] else { continue };
        let Some((found_device, found_inode)) = place.rsplit_once(':') else { continue };
        if found_inode.parse() != Ok(inode) {
            continue;
        }
        let pid = pid.parse::<u32>().ok().filter(|pid| *pid > 0);
        if found_device == device {
            return pid;
        }
        by_inode.push(pid);
    }
    match by_inode[..] {
        [pid] => pid,
        _ => None,
    }
}

/// Finds `lock: N: OFDLCK ADVISORY WRITE -1 <place> <first> <last>` with `offset` inside.
fn holds_byte(info: &str, offset: i64) -> bool {
    info.lines().filter_map(|line| line.strip_prefix("lock:")).any(|lock| {
        let words: Vec<&str> = lock.split_whitespace().collect();
        let [_, "OFDLCK", _, "WRITE", _, _, first, last] = words[..] else { return false };
        let first = first.parse::<i64>();
        let last = if last == "EOF" { Ok(i64::MAX) } else { last.parse::<i64>() };
        matches!((first, last), (Ok(first), Ok(last)) if (first..=last).contains(&offset))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_kernel_are_read() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
            2: FLOCK  ADVISORY  READ 12 fe:00:77 0 EOF\n\
            3: FLOCK  ADVISORY  WRITE 13 fe:01:77 0 EOF\n\
            4: FLOCK  ADVISORY  WRITE 14 fe:00:77 0 EOF\n\
            4: -> FLOCK  ADVISORY  WRITE 15 fe:00:77 0 EOF\n\
            5: FLOCK  ADVISORY  WRITE 16 00:2a:78 0 EOF\n\
            6: OFDLCK ADVISORY  WRITE -1 fe:00:79 5 5\n";
        assert_eq!(flock_holder(locks, "fe:00", 77), Some(14));
        assert_eq!(flock_holder(locks, "00:99", 78), Some(16));
        assert_eq!(flock_holder(locks, "00:99", 77), None);
        assert_eq!(flock_holder(locks, "fe:00", 80), None);
    }

    #[test]
    fn the_range_decides() {
        let info = "pos:\t0\nflags:\t02100002\nlock:\t1: OFDLCK ADVISORY  WRITE -1 fe:00:79 5 6\n";
        assert!(holds_byte(info, 5) && holds_byte(info, 6) && !holds_byte(info, 7));
        assert!(!holds_byte("pos:\t0\n", 0));
    }
}
