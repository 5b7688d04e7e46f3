//! File systems of a test's own: small ones that fill up, and read-only ones, in a mount namespace that ends with the test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Run, Workspace};

/// A process that holds a mount namespace; commands enter it.
pub struct Disks {
    holder: Child,
    enter: &'static [&'static str],
}

impl Disks {
    /// Runs `mounts` (shell text, in the workspace) in a new mount namespace. `None` where the kernel refuses, which is said.
    pub fn new(workspace: &Workspace, mounts: &str) -> Option<Self> {
        // as root, else as the root of a user namespace
        let ways: [(&[&str], &[&str]); 2] =
            [(&["-m"], &["-m"]), (&["-r", "-m"], &["-U", "--preserve-credentials", "-m"])];
        for (unshare, enter) in ways {
            let script = format!("{{ {mounts}; }} >&2 && echo ready && exec sleep 1000");
            let child = Command::new("unshare")
                .args(unshare)
                .args(["sh", "-ec", &script])
                .current_dir(workspace.root())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let Ok(mut holder) = child else { continue };
            let mut line = String::new();
            BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
            if line == "ready\n" {
                return Some(Self { holder, enter });
            }
            holder.wait().unwrap();
        }
        eprintln!("skipped: the kernel lets this process mount nothing");
        None
    }

    /// `flow` with these arguments, in the workspace as the namespace sees it.
    pub fn flow(&self, workspace: &Workspace, args: &[&str]) -> Run {
        let plain = workspace.command(args);
        let mut command = self.entering(workspace);
        command.arg(plain.get_program()).args(plain.get_args());
        Run::of(command.output().unwrap())
    }

    /// `flow run flow.json --json -v`.
    pub fn run(&self, workspace: &Workspace) -> Run {
        self.flow(workspace, &["run", "flow.json", "--json", "-v"])
    }

    /// A shell command in the namespace, which has to succeed.
    #[track_caller]
    pub fn sh(&self, workspace: &Workspace, script: &str) {
        let output = self.entering(workspace).args(["sh", "-ec", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A path of the workspace as it is in the namespace.
    pub fn path(&self, workspace: &Workspace, path: &str) -> PathBuf {
        let inside = workspace.root().canonicalize().unwrap();
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(inside.strip_prefix("/").unwrap_or(Path::new(""))).join(path)
    }

    fn entering(&self, workspace: &Workspace) -> Command {
        let mut command = Command::new("nsenter");
        let root = workspace.root().canonicalize().unwrap();
        command
            .args(["-t", &self.holder.id().to_string()])
            .args(self.enter)
            .arg("--")
            .env_clear()
            .stdin(Stdio::null());
        // the directory as the namespace sees it, with what is mounted in it
        command.args(["sh", "-ec", "cd \"$0\"; exec \"$@\""]).arg(root);
        command.envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        // with the last process of the namespace its mounts go
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
