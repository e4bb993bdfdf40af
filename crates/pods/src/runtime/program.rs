//! Which program a container or an exec runs, where it is, and what to say when it cannot.
//!
//! The messages are those of runc, since people search for them.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};

use crate::images::{BuiltIn, ImageConfig};
use crate::rooted::Root;

/// Search path of a container whose image has none; containerd's default.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("no command specified")]
    None,
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotInPath(String),
    #[error("exec: {0:?}: stat {0}: no such file or directory")]
    NotFound(String),
    #[error("exec: {0:?}: is a directory")]
    Directory(String),
    #[error("exec: {0:?}: permission denied")]
    Denied(String),
}

/// Exit code for a message of [`ProgramError`], as a shell would give: 127 not found, 126 not executable.
pub(super) fn exit_code(message: &str) -> i32 {
    if message.contains("not found in $PATH") || message.contains("no such file or directory") {
        127
    } else if message.starts_with("exec: ") {
        126
    } else {
        128
    }
}

/// What to tell the user of a failure in libcontainer: the message of a [`ProgramError`] where that is what it has
/// wrapped, else the whole chain and the innermost report.
pub(super) fn message_of(
    error: &(dyn std::error::Error + 'static),
    reported: Option<String>,
) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // Transparent wrappers repeat what is inside them.
        if parts.last().is_none_or(|last| !last.ends_with(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    let whole = parts.join(": ").replace('\0', "");
    match (whole.find("exec: \""), reported) {
        (Some(start), _) => whole[start..].to_owned(),
        (None, Some(reported)) => format!("{whole}: {reported}"),
        (None, None) => whole,
    }
}

/// Starts a container's program: libcontainer's own executor says other things than runc, tests the permission
/// bits of others instead of asking the kernel, and leaves SIGPIPE ignored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program;

impl Executor for Program {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        locate(spec)
            .map(|_| ())
            .map_err(|error| ExecutorValidationError::ArgValidationError(error.to_string()))
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (path, args) = locate(spec).map_err(|error| ExecutorError::Other(error.to_string()))?;
        let name = args.first().map_or("", String::as_str);
        // `Command::exec` gives the program default signal handling back, which execve alone does not.
        let error = Command::new(&path)
            .arg0(name)
            .args(args.iter().skip(1))
            .exec();
        let message = format!("exec {}: {error}", path.display());
        eprintln!("{message}");
        Err(ExecutorError::Other(message))
    }
}

/// Finds the program of a process that stands in its container already.
fn locate(spec: &Spec) -> Result<(PathBuf, &[String]), ProgramError> {
    let process = spec.process().as_ref().ok_or(ProgramError::None)?;
    let args = process.args().as_deref().unwrap_or_default();
    let name = args
        .first()
        .filter(|name| !name.is_empty())
        .ok_or(ProgramError::None)?;
    let env = process.env().as_deref().unwrap_or_default();
    let found = find(
        name,
        search_path(env),
        &|path| match rustix::fs::stat(path) {
            Err(_) => Found::Nothing,
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Found::Directory
            }
            Ok(_) => match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
                Ok(()) => Found::Executable,
                Err(_) => Found::NotExecutable,
            },
        },
    )?;
    Ok((found, args))
}

/// `PATH` of an environment.
fn search_path(env: &[String]) -> &str {
    env.iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH)
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Directory,
    NotExecutable,
    Executable,
}

/// execvp(3)'s search, with reasons.
fn find(name: &str, path: &str, look: &dyn Fn(&Path) -> Found) -> Result<PathBuf, ProgramError> {
    if name.contains('/') {
        let file = PathBuf::from(name);
        return match look(&file) {
            Found::Executable => Ok(file),
            Found::Nothing => Err(ProgramError::NotFound(name.to_owned())),
            Found::Directory => Err(ProgramError::Directory(name.to_owned())),
            Found::NotExecutable => Err(ProgramError::Denied(name.to_owned())),
        };
    }
    let mut denied = false;
    for dir in path.split(':') {
        let file = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match look(&file) {
            Found::Executable => return Ok(file),
            Found::NotExecutable => denied = true,
            Found::Nothing | Found::Directory => {}
        }
    }
    if denied {
        Err(ProgramError::Denied(name.to_owned()))
    } else {
        Err(ProgramError::NotInPath(name.to_owned()))
    }
}

/// What a container's command line is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommandLine<'a> {
    pub(super) image: &'a ImageConfig,
    pub(super) built_in: Option<BuiltIn>,
    /// `command` of the Pod.
    pub(super) command: &'a [String],
    /// `args` of the Pod.
    pub(super) args: &'a [String],
    /// Environment of the container.
    pub(super) env: &'a [String],
    /// Working directory of the container.
    pub(super) working_dir: &'a str,
}

impl CommandLine<'_> {
    /// The arguments to start, program first.
    ///
    /// As in Kubernetes: `command` replaces the entrypoint and with it the image's arguments; `args` replaces the
    /// image's arguments.
    ///
    /// `seaway/whoami` stands in for other images under their names, so a Pod may ask it for a program that only
    /// the real image has: `command: [node, index.js, Whale]`. There, a command that names nothing which exists
    /// becomes whoami's arguments. It names something when its program is an executable file in the root file
    /// system and, where its first argument is a bare script name (`index.js`), that file is in the working
    /// directory as well; the second half is for machines that have `node` but not the script.
    pub(super) fn resolve(&self, root: &Root) -> Result<Vec<String>, ProgramError> {
        let argv: Vec<String> = if self.command.is_empty() {
            let args = if self.args.is_empty() {
                &self.image.cmd
            } else {
                self.args
            };
            self.image.entrypoint.iter().chain(args).cloned().collect()
        } else if self.built_in == Some(BuiltIn::Whoami) && !self.names_something(root) {
            self.image
                .entrypoint
                .iter()
                .chain(self.command)
                .chain(self.args)
                .cloned()
                .collect()
        } else {
            self.command.iter().chain(self.args).cloned().collect()
        };
        if argv.first().is_none_or(String::is_empty) {
            Err(ProgramError::None)
        } else {
            Ok(argv)
        }
    }

    fn names_something(&self, root: &Root) -> bool {
        let Some(name) = self.command.first() else {
            return false;
        };
        let working_dir = Path::new(self.working_dir);
        let look = |path: &Path| look_below(root, &working_dir.join(path));
        if find(name, search_path(self.env), &look).is_err() {
            return false;
        }
        match self.command.get(1).or(self.args.first()) {
            Some(script) if is_bare_script(script) => {
                look_below(root, &working_dir.join(script)) != Found::Nothing
            }
            _ => true,
        }
    }
}

/// Whether an argument is the name of a script in the working directory, such as `index.js`.
fn is_bare_script(argument: &str) -> bool {
    const SUFFIXES: [&str; 9] = [
        ".js", ".mjs", ".cjs", ".ts", ".py", ".rb", ".pl", ".php", ".jar",
    ];
    !argument.starts_with('-')
        && !argument.contains(['/', ' '])
        && SUFFIXES
            .iter()
            .any(|suffix| argument.len() > suffix.len() && argument.ends_with(suffix))
}

fn look_below(root: &Root, path: &Path) -> Found {
    let Ok(fd) = root.open_file(path, OFlags::PATH, Mode::empty()) else {
        return Found::Nothing;
    };
    match rustix::fs::fstat(fd) {
        Err(_) => Found::Nothing,
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            Found::Directory
        }
        Ok(stat) if stat.st_mode & 0o111 != 0 => Found::Executable,
        Ok(_) => Found::NotExecutable,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn files(path: &Path) -> Found {
        match path.to_str().unwrap() {
            "/bin/sh" | "/opt/sh" | "./run" => Found::Executable,
            "/opt/data" => Found::NotExecutable,
            "/bin" => Found::Directory,
            _ => Found::Nothing,
        }
    }

    #[test]
    fn a_program_is_found_or_the_reason_is_runcs() {
        let find = |name: &str| find(name, "/opt:/bin", &files).map_err(|error| error.to_string());
        assert_eq!(find("sh"), Ok("/opt/sh".into()));
        assert_eq!(find("/bin/sh"), Ok("/bin/sh".into()));
        assert_eq!(find("./run"), Ok("./run".into()));
        let error = |name: &str| find(name).unwrap_err();
        assert_eq!(
            error("foo"),
            "exec: \"foo\": executable file not found in $PATH"
        );
        assert_eq!(
            error("/foo"),
            "exec: \"/foo\": stat /foo: no such file or directory"
        );
        assert_eq!(error("/bin"), "exec: \"/bin\": is a directory");
        assert_eq!(error("data"), "exec: \"data\": permission denied");
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let code = |error: ProgramError| exit_code(&error.to_string());
        assert_eq!(code(ProgramError::NotInPath("x".into())), 127);
        assert_eq!(code(ProgramError::NotFound("/x".into())), 127);
        assert_eq!(code(ProgramError::Denied("x".into())), 126);
        assert_eq!(code(ProgramError::Directory("/".into())), 126);
        assert_eq!(exit_code("failed to prepare rootfs"), 128);
    }

    #[test]
    fn the_message_is_taken_out_of_its_wrapping() {
        let wrapped = std::io::Error::other(
            "error in executing process : invalid executable: exec: \"foo\": executable file not found in $PATH\0",
        );
        let message = "exec: \"foo\": executable file not found in $PATH";
        assert_eq!(message_of(&wrapped, Some("noise".to_owned())), message);
        let full = std::io::Error::other("disk full");
        assert_eq!(message_of(&full, None), "disk full");
        assert_eq!(
            message_of(&full, Some("writing x".to_owned())),
            "disk full: writing x"
        );
    }

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    /// A root file system with `/usr/bin/node` and `/app/there.js`.
    fn with_node() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        fs::create_dir_all(dir.path().join("app")).unwrap();
        fs::write(dir.path().join("app/there.js"), "").unwrap();
        let node = dir.path().join("usr/bin/node");
        fs::write(&node, "").unwrap();
        fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    fn resolve(built_in: Option<BuiltIn>, command: &[&str], args: &[&str]) -> Vec<String> {
        let dir = with_node();
        let image = ImageConfig {
            entrypoint: strings(&["/whoami"]),
            cmd: strings(&["default"]),
            ..ImageConfig::default()
        };
        let line = CommandLine {
            image: &image,
            built_in,
            command: &strings(command),
            args: &strings(args),
            env: &[],
            working_dir: "/app",
        };
        line.resolve(&Root::open(dir.path()).unwrap()).unwrap()
    }

    #[test]
    fn command_and_args_replace_as_in_kubernetes() {
        assert_eq!(resolve(None, &[], &[]), ["/whoami", "default"]);
        assert_eq!(resolve(None, &[], &["a"]), ["/whoami", "a"]);
        assert_eq!(resolve(None, &["x"], &[]), ["x"]);
        assert_eq!(resolve(None, &["x"], &["a"]), ["x", "a"]);
    }

    #[test]
    fn whoami_takes_a_foreign_command_for_its_arguments() {
        let whoami = |command: &[&str]| resolve(Some(BuiltIn::Whoami), command, &["arg"]);
        assert_eq!(whoami(&["absent", "x"]), ["/whoami", "absent", "x", "arg"]);
        // `node` exists here, `index.js` does not.
        assert_eq!(
            whoami(&["node", "index.js", "Whale Type A, Here."]),
            ["/whoami", "node", "index.js", "Whale Type A, Here.", "arg"]
        );
        assert_eq!(whoami(&["node", "there.js"]), ["node", "there.js", "arg"]);
        assert_eq!(
            whoami(&["node", "/scripts/mounted.js"]),
            ["node", "/scripts/mounted.js", "arg"]
        );
        assert_eq!(whoami(&["node", "--version"]), ["node", "--version", "arg"]);
    }

    #[test]
    fn nothing_to_run_is_an_error() {
        let dir = with_node();
        let line = CommandLine {
            image: &ImageConfig::default(),
            built_in: None,
            command: &[],
            args: &[],
            env: &[],
            working_dir: "/",
        };
        assert_eq!(
            line.resolve(&Root::open(dir.path()).unwrap()),
            Err(ProgramError::None)
        );
    }
}
