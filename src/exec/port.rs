//! TCP ports of this machine: a free one, who listens on one. Unaware of services.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};

use crate::base::process;

/// A port of the loopback that nobody uses now. Another may take it before it is used.
pub(super) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Whether a port of the loopback is in use, and by whom if that can be seen: `pid 123 (python3 -m http.server)`.
pub(super) fn taken_by(port: u16) -> Option<String> {
    let in_table = !listening_sockets(port).unwrap_or_default().is_empty();
    let refused = || {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        bound.is_err_and(|e| e.kind() == ErrorKind::AddrInUse)
    };
    (in_table || refused()).then(|| name_owner(port))
}

/// Who listens on a port, for messages.
pub(super) fn name_owner(port: u16) -> String {
    let sockets = listening_sockets(port).unwrap_or_default();
    let owner = process::pids().into_iter().find(|pid| holds(*pid, &sockets));
    owner.map_or_else(
        || "a process that cannot be seen (of another user)".to_owned(),
        |pid| match process::command_line(pid) {
            Some(line) => format!("pid {pid} ({line})"),
            None => format!("pid {pid}"),
        },
    )
}

/// The inodes of the sockets that listen on a port, on any address; `None` where the system does not tell.
pub(super) fn listening_sockets(port: u16) -> Option<BTreeSet<u64>> {
    let tables: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .collect();
    if tables.is_empty() {
        return None;
    }
    Some(tables.iter().flat_map(|table| table.lines()).filter_map(|line| listener(line, port)).collect())
}

/// The inode of a line of `/proc/net/tcp` if it is a listener on this port.
fn listener(line: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let is_it = *fields.get(3)? == LISTEN && u16::from_str_radix(local_port, 16).ok()? == port;
    is_it.then(|| fields.get(9)?.parse().ok())?
}

/// Whether a process has one of these sockets open.
pub(super) fn holds(pid: u32, sockets: &BTreeSet<u64>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inode.is_some_and(|inode| sockets.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_and_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = listening_sockets(port).unwrap();
        assert_eq!(sockets.len(), 1);
        assert!(holds(std::process::id(), &sockets));
        let owner = taken_by(port).unwrap();
        assert!(owner.starts_with(&format!("pid {}", std::process::id())), "{owner}");
        drop(listener);
        assert!(listening_sockets(port).unwrap().is_empty());
        assert_eq!(taken_by(port), None);
    }

    #[test]
    fn lines_of_the_table() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0";
        assert_eq!(listener(line, 8080), Some(4242));
        assert_eq!(listener(line, 8081), None);
        assert_eq!(listener(&line.replace(" 0A ", " 01 "), 8080), None);
        assert_eq!(listener("  sl  local_address rem_address   st", 8080), None);
    }
}
