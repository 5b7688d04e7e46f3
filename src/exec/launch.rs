//! Starts one process in a group of its own, with exactly the environment given and its output in one pipe. Unaware of what comes after.

use std::fs::File;
use std::io::{ErrorKind, PipeReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Guard;
use super::family::{Family, Mark};
use super::mask::Masker;
use super::plain::{Plain, plain};

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// More than a pipe can hold: what comes after that much was written after the end.
pub(super) const PIPE_SIZE: usize = 1024 * 1024;

/// A command that could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LaunchError {
    /// What is wrong, with the program or path it is about; secrets masked.
    pub message: String,
    /// What to try; each a line of its own.
    pub hints: Vec<String>,
    /// The machine lacks the program.
    pub missing: bool,
}

impl LaunchError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hints: Vec::new(), missing: false }
    }

    fn missing(message: impl Into<String>) -> Self {
        Self { missing: true, ..Self::new(message) }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    fn masked(self, masker: &Masker) -> Self {
        Self {
            message: masker.mask(&self.message),
            hints: self.hints.iter().map(|hint| masker.mask(hint)).collect(),
            ..self
        }
    }
}

/// What to start.
pub(super) struct Launch<'a> {
    pub(super) argv: &'a [String],
    /// All of it; nothing is inherited.
    pub(super) env: &'a [(String, String)],
    pub(super) cwd: &'a Path,
    /// Else nothing can be read.
    pub(super) stdin: Option<&'a Path>,
    /// A file to create; else the pipe takes it.
    pub(super) stdout: Option<&'a Path>,
    pub(super) masker: &'a Masker,
}

/// What was started.
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) family: Family,
    /// Standard error, and standard output if it goes to no file, in the order written.
    pub(super) output: PipeReader,
}

impl Launch<'_> {
    /// Starts it, marks it, and tells the guard.
    pub(super) fn start(&self, mark: Mark, guard: &Guard) -> Result<Launched, LaunchError> {
        self.spawn(mark, guard).map_err(|error| self.of_place().unwrap_or(error).masked(self.masker))
    }

    /// The same; text that needs no shell is started without, and with one if that fails.
    pub(super) fn start_plainly(&self, mark: &'static str, guard: &Guard) -> Result<Launched, LaunchError> {
        let plain = plain(self.argv, self.cwd).filter(|_| self.stdout.is_none());
        // a shell would tell it the working directory, by the name it has there
        let plain = plain.filter(|_| self.env.iter().all(|(name, _)| name != "PWD"));
        if let Some(Plain { argv, stdout }) = plain {
            let mut env = self.env.to_vec();
            let cwd = std::fs::canonicalize(self.cwd).unwrap_or_else(|_| self.cwd.to_owned());
            env.push(("PWD".to_owned(), cwd.to_string_lossy().into_owned()));
            let stdout = stdout.as_deref();
            if let Ok(launched) =
                (Launch { argv: &argv, env: &env, stdout, ..*self }).spawn(Mark::new(mark), guard)
            {
                return Ok(launched);
            }
        }
        self.start(Mark::new(mark), guard)
    }

    /// What is wrong with the working directory: asked for only if something failed.
    fn of_place(&self) -> Option<LaunchError> {
        if self.cwd.is_dir() {
            return None;
        }
        let what = if self.cwd.exists() { "is no directory" } else { "does not exist" };
        let error = LaunchError::new(format!("working directory {} {what}", self.cwd.display()));
        Some(error.hint("'cwd' names a directory in the workspace"))
    }

    fn spawn(&self, mark: Mark, guard: &Guard) -> Result<Launched, LaunchError> {
        let program = self.argv.first().ok_or_else(|| LaunchError::new("the command is empty"))?;
        let stdin = match self.stdin {
            None => Stdio::null(),
            Some(path) => File::open(path).map(Stdio::from).map_err(|e| {
                LaunchError::new(format!("failed to open standard input {}: {e}", path.display()))
            })?,
        };
        let failed = |e: std::io::Error| LaunchError::new(format!("failed to make a pipe: {e}"));
        let (output, write) = std::io::pipe().map_err(failed)?;
        let resolved = self.resolve(program)?;
        let stdout = match self.stdout {
            None => Stdio::from(write.try_clone().map_err(failed)?),
            Some(path) => File::create(path).map(Stdio::from).map_err(|e| {
                LaunchError::new(format!("failed to create standard output {}: {e}", path.display()))
            })?,
        };
        // A script is told the path that was given, which no output should hold as an absolute one. It starts at the working directory.
        let mut command = Command::new(if program.contains('/') { Path::new(program) } else { &resolved });
        command
            .arg0(program)
            .args(&self.argv[1..])
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env(mark.variable, &mark.value)
            .current_dir(self.cwd)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(write)
            .process_group(0);
        let child = command.spawn().map_err(|e| self.explain(program, &resolved, &e))?;
        let family = Family { pgid: child.id(), mark };
        guard.register(family.pgid);
        Ok(Launched { child, family, output })
    }

    /// The file a program's name means: as a path from the working directory, or found in the command's own `PATH`.
    pub(super) fn resolve(&self, program: &str) -> Result<PathBuf, LaunchError> {
        if program.contains('/') {
            let path = self.cwd.join(program);
            return match path.metadata() {
                Ok(meta) if meta.is_dir() => {
                    Err(LaunchError::new(format!("program '{program}' is a directory ({})", path.display())))
                }
                Ok(meta) if meta.permissions().mode() & 0o111 == 0 => Err(not_executable(program, &path)),
                Ok(_) => Ok(path),
                Err(e) if e.kind() == ErrorKind::NotFound => Err(LaunchError::missing(format!(
                    "program '{program}' not found: there is no {}",
                    path.display()
                ))
                .hint("a program with a '/' in its name is looked for from the working directory")),
                Err(e) => Err(LaunchError::new(format!("program '{program}' cannot be read: {e}"))),
            };
        }
        let searched =
            self.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
        let path = searched.unwrap_or(DEFAULT_PATH);
        let mut unusable = None;
        for dir in path.split(':') {
            let candidate = self.cwd.join(dir).join(program);
            match candidate.metadata() {
                Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {
                    // as for a path that was given: a script is told where it was found
                    return Ok(if dir.starts_with('/') {
                        candidate
                    } else {
                        Path::new(if dir.is_empty() { "." } else { dir }).join(program)
                    });
                }
                Ok(meta) if meta.is_file() => unusable = unusable.or(Some(candidate)),
                _ => {}
            }
        }
        if let Some(candidate) = unusable {
            return Err(not_executable(program, &candidate));
        }
        let mut error = LaunchError::missing(format!("program '{program}' not found in PATH ({path})"));
        if self.cwd.join(program).is_file() {
            error = error
                .hint(format!("there is a file of this name in the working directory: write './{program}'"));
        } else if program.contains(char::is_whitespace) {
            error = error
                .hint("a list is started without a shell: one element per argument, or one text for a shell");
        } else {
            error = error.hint("install it, or set PATH in 'env' to a list that holds its directory");
        }
        Err(error)
    }

    pub(super) fn explain(&self, program: &str, resolved: &Path, error: &std::io::Error) -> LaunchError {
        use nix::errno::Errno;
        let failed =
            LaunchError::new(format!("failed to start '{program}' ({}): {error}", resolved.display()));
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOEXEC) => failed.hint("a script needs a first line such as '#!/bin/sh'"),
            Some(Errno::ENOENT) => match interpreter(&self.cwd.join(resolved)) {
                Some(name) => failed.hint(format!("its first line asks for '{name}', which may be missing")),
                None => failed.hint("its dynamic loader may be missing"),
            },
            Some(Errno::E2BIG) => {
                let bytes: usize = self.argv.iter().map(|arg| arg.len() + 1).sum();
                failed.hint(format!(
                    "its {} arguments have {bytes} bytes; give a long list as a file or on standard input",
                    self.argv.len()
                ))
            }
            Some(Errno::EAGAIN) => failed.hint("the limit of processes is reached (ulimit -u)"),
            _ => failed,
        }
    }
}

fn not_executable(program: &str, path: &Path) -> LaunchError {
    LaunchError::new(format!("program '{program}' is not executable ({})", path.display()))
        .hint(format!("chmod +x {}", path.display()))
}

/// What follows `#!` in a script.
fn interpreter(path: &Path) -> Option<String> {
    use std::io::{BufRead, BufReader, Read};
    let mut line = Vec::new();
    BufReader::new(File::open(path).ok()?.take(256)).read_until(b'\n', &mut line).ok()?;
    let line = std::str::from_utf8(line.strip_prefix(b"#!")?).ok()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// Takes what is in the pipe: waits at most `within` for something, then hands it on.
///
/// `Some(0)` is the end of the output, `None` means that nothing came in time.
pub(super) fn read_some(
    pipe: &mut PipeReader,
    buffer: &mut [u8],
    within: std::time::Duration,
) -> Option<usize> {
    use std::io::Read;
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let millis = u16::try_from(within.as_millis()).unwrap_or(u16::MAX);
    let mut wanted = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    match poll(&mut wanted, PollTimeout::from(millis)) {
        Ok(0) => None,
        Err(nix::errno::Errno::EINTR) => None,
        // Nothing else reads this pipe, so there is something to read, or its end.
        _ => match pipe.read(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => None,
            Err(_) => Some(0),
            Ok(read) => Some(read),
        },
    }
}
