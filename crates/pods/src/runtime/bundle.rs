//! The OCI runtime configuration of a container: what containerd's CRI plugin would write.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::program::DEFAULT_PATH;
use super::users::Identity;
use super::{ContainerSpec, Limits, Mount};
use crate::images::{BuiltIn, ImageInfo, Rootfs};

/// Where the binary appears in images that need it.
pub(super) const BINARY: &str = "/.seaway/seaway";

/// What the configuration is made of.
#[derive(Debug)]
pub(super) struct Bundle<'a> {
    pub(super) spec: &'a ContainerSpec,
    pub(super) image: &'a ImageInfo,
    /// Program and arguments.
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) working_dir: &'a str,
    pub(super) identity: Identity,
    /// Bits of the capabilities that we have ourselves and so can give.
    pub(super) available: u64,
    /// Absolute path of the mounted root file system.
    pub(super) rootfs: &'a Path,
    /// Process whose namespaces it joins.
    pub(super) sandbox_pid: i32,
    pub(super) cgroup: &'a str,
    pub(super) exe: &'a Path,
    pub(super) shm: &'a Path,
    pub(super) termination: &'a Path,
    /// Directories of the machine to hide, where the root file system is the machine's.
    pub(super) hidden: &'a [PathBuf],
}

/// Environment of a container: the Pod's, then what only the image has, then a search path.
pub(super) fn environment(spec: &ContainerSpec, image: &ImageInfo) -> Vec<String> {
    let mut env: Vec<String> = image
        .config
        .env
        .iter()
        .filter(|entry| !spec.env.contains_key(entry.split('=').next().unwrap_or("")))
        .cloned()
        .collect();
    env.extend(
        spec.env
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    let has = |env: &[String], name: &str| env.iter().any(|entry| entry.starts_with(name));
    if !has(&env, "PATH=") {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if spec.tty && !has(&env, "TERM=") {
        env.push("TERM=xterm".to_owned());
    }
    if image.built_in == Some(BuiltIn::Whoami) && !spec.ports.is_empty() {
        env.push(format!("{}={}", crate::whoami::PORTS, spec.ports.join(",")));
    }
    env
}

/// The container's working directory.
pub(super) fn working_dir<'a>(spec: &'a ContainerSpec, image: &'a ImageInfo) -> &'a str {
    match spec
        .working_dir
        .as_deref()
        .unwrap_or(&image.config.working_dir)
    {
        "" => "/",
        dir => dir,
    }
}

impl Bundle<'_> {
    /// `config.json`
    pub(super) fn config(&self) -> Value {
        let privileged = self.spec.privileged;
        let capabilities = capabilities(self.spec, self.available);
        let sandbox = |name: &str| format!("/proc/{}/ns/{name}", self.sandbox_pid);
        json!({
            "ociVersion": "1.0.2",
            "root": { "path": self.rootfs, "readonly": self.spec.read_only_root },
            "process": {
                "terminal": self.spec.tty,
                "user": {
                    "uid": self.identity.uid,
                    "gid": self.identity.gid,
                    "additionalGids": self.identity.additional_gids,
                },
                "args": self.argv,
                "env": self.env,
                "cwd": self.working_dir,
                "noNewPrivileges": self.spec.no_new_privileges,
                "capabilities": {
                    "bounding": capabilities,
                    "effective": capabilities,
                    "permitted": capabilities,
                },
            },
            "mounts": self.mounts(),
            "linux": {
                "cgroupsPath": self.cgroup,
                "namespaces": [
                    { "type": "pid" },
                    { "type": "mount" },
                    { "type": "cgroup" },
                    { "type": "network", "path": sandbox("net") },
                    { "type": "ipc", "path": sandbox("ipc") },
                    { "type": "uts", "path": sandbox("uts") },
                ],
                "resources": resources(&self.spec.limits, privileged),
                "maskedPaths": if privileged { &[][..] } else { MASKED },
                "readonlyPaths": if privileged { &[][..] } else { READ_ONLY },
            },
        })
    }

    fn mounts(&self) -> Vec<Value> {
        let privileged = self.spec.privileged;
        let sys = if privileged { "rw" } else { "ro" };
        let mut mounts = vec![
            special("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            special(
                "/dev",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            special(
                "/dev/pts",
                "devpts",
                &[
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            ),
            special("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            special("/sys", "sysfs", &["nosuid", "noexec", "nodev", sys]),
            special(
                "/sys/fs/cgroup",
                "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", sys],
            ),
            json!({
                "destination": "/dev/shm", "type": "bind", "source": self.shm,
                "options": ["rbind", "rw", "nosuid", "noexec", "nodev"],
            }),
        ];
        if self.image.rootfs == Rootfs::Host {
            mounts.extend(self.hidden.iter().map(|dir| {
                // What programs expect to be writable for everybody stays so.
                let mode = if dir.ends_with("tmp") {
                    "mode=1777"
                } else {
                    "mode=755"
                };
                json!({
                    "destination": dir, "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "nodev", mode],
                })
            }));
        }
        if self.image.built_in == Some(BuiltIn::Whoami) {
            mounts.push(bind(self.exe, Path::new(BINARY), true));
        }
        mounts.push(bind(self.termination, &self.termination_path(), false));
        mounts.extend(self.spec.mounts.iter().map(
            |Mount {
                 source,
                 destination,
                 read_only,
             }| bind(source, destination, *read_only),
        ));
        mounts
    }

    fn termination_path(&self) -> PathBuf {
        match self.spec.termination_message_path.as_str() {
            "" => "/dev/termination-log".into(),
            path => path.into(),
        }
    }
}

fn special(destination: &str, fs_type: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": fs_type, "source": fs_type, "options": options })
}

fn bind(source: &Path, destination: &Path, read_only: bool) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    json!({
        "destination": destination, "type": "bind", "source": source,
        "options": ["rbind", "rprivate", access],
    })
}

fn resources(limits: &Limits, privileged: bool) -> Value {
    // Denied first; libcontainer then allows the devices that every container has.
    let mut resources = json!({ "devices": [{ "allow": privileged, "access": "rwm" }] });
    if let Some(limit) = limits.memory {
        resources["memory"] = json!({ "limit": limit });
    }
    let mut cpu = serde_json::Map::new();
    if let Some(millis) = limits.cpu_millis {
        // The kernel takes no quota below 1 ms (kubelet: minQuotaPeriod).
        cpu.insert("period".into(), json!(CPU_PERIOD));
        cpu.insert(
            "quota".into(),
            json!((millis * CPU_PERIOD / 1000).max(1000)),
        );
    }
    if let Some(millis) = limits.cpu_request_millis {
        // kubelet's MilliCPUToShares, with its bounds.
        cpu.insert(
            "shares".into(),
            json!((millis * 1024 / 1000).clamp(2, 262_144)),
        );
    }
    if !cpu.is_empty() {
        resources["cpu"] = Value::Object(cpu);
    }
    resources
}

/// Microseconds, the kubelet's default `cpuCFSQuotaPeriod`.
const CPU_PERIOD: i64 = 100_000;

/// Capabilities of a container, `CAP_` first, of those that are available.
fn capabilities(spec: &ContainerSpec, available: u64) -> Vec<String> {
    let full = |name: &String| {
        let name = name.to_ascii_uppercase();
        if name.starts_with("CAP_") || name == "ALL" {
            name
        } else {
            format!("CAP_{name}")
        }
    };
    let add: Vec<String> = spec.capabilities_add.iter().map(full).collect();
    let drop: Vec<String> = spec.capabilities_drop.iter().map(full).collect();
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let start: &[&str] = if spec.privileged || all(&add) {
        ALL_CAPABILITIES
    } else if all(&drop) {
        &[]
    } else {
        DEFAULT_CAPABILITIES
    };
    let drop = if spec.privileged { Vec::new() } else { drop };
    let mut result: Vec<String> = start
        .iter()
        .map(|name| (*name).to_owned())
        .filter(|name| !drop.contains(name))
        .collect();
    for name in add.into_iter().filter(|name| name != "ALL") {
        if !result.contains(&name) {
            result.push(name);
        }
    }
    // A name that nobody knows stays, so that it is refused with its name.
    result.retain(
        |name| match ALL_CAPABILITIES.iter().position(|known| known == name) {
            Some(bit) => available & (1 << bit) != 0,
            None => true,
        },
    );
    result
}

/// containerd's default set (`oci.defaultUnixCaps`).
const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// capabilities(7), each in the place of its bit.
const ALL_CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// containerd's `oci.defaultMaskedPaths`.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// containerd's `oci.defaultReadonlyPaths`.
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::ImageConfig;

    fn image(rootfs: Rootfs, built_in: Option<BuiltIn>) -> ImageInfo {
        let env = vec!["PATH=/image".to_owned(), "A=image".to_owned()];
        ImageInfo {
            id: "sha256:0".into(),
            config: ImageConfig {
                env,
                working_dir: "/srv".into(),
                ..ImageConfig::default()
            },
            size: 0,
            rootfs,
            built_in,
        }
    }

    fn config(spec: &ContainerSpec, image: &ImageInfo) -> Value {
        let bundle = Bundle {
            spec,
            image,
            argv: vec!["run".into()],
            env: environment(spec, image),
            working_dir: working_dir(spec, image),
            identity: Identity {
                uid: 1,
                gid: 2,
                additional_gids: vec![3],
            },
            available: u64::MAX,
            rootfs: Path::new("/state/rootfs"),
            sandbox_pid: 77,
            cgroup: "/seaway/lab/node-1/pod1/web.0",
            exe: Path::new("/usr/bin/seaway"),
            shm: Path::new("/state/shm"),
            termination: Path::new("/state/termination"),
            hidden: &[PathBuf::from("/run"), PathBuf::from("/tmp")],
        };
        bundle.config()
    }

    fn destinations(config: &Value) -> Vec<&str> {
        config["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["destination"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn libcontainer_reads_what_we_write() {
        let config = config(
            &ContainerSpec::default(),
            &image(Rootfs::Host, Some(BuiltIn::Whoami)),
        );
        let spec: libcontainer::oci_spec::runtime::Spec = serde_json::from_value(config).unwrap();
        assert_eq!(
            spec.linux()
                .as_ref()
                .unwrap()
                .namespaces()
                .as_ref()
                .unwrap()
                .len(),
            6
        );
    }

    #[test]
    fn the_pods_environment_wins_over_the_images() {
        let mut spec = ContainerSpec {
            tty: true,
            ..ContainerSpec::default()
        };
        spec.env.insert("A".into(), "pod".into());
        assert_eq!(
            environment(&spec, &image(Rootfs::Host, None)),
            ["PATH=/image", "A=pod", "TERM=xterm"]
        );
    }

    #[test]
    fn whoami_learns_its_ports() {
        let spec = ContainerSpec {
            ports: vec!["80/TCP".into(), "53/UDP".into()],
            ..ContainerSpec::default()
        };
        let env = environment(&spec, &image(Rootfs::Host, Some(BuiltIn::Whoami)));
        assert!(
            env.contains(&"SEAWAY_WHOAMI_PORTS=80/TCP,53/UDP".to_owned()),
            "{env:?}"
        );
    }

    #[test]
    fn the_machines_directories_are_hidden_in_host_images_only() {
        let spec = ContainerSpec::default();
        let host = config(&spec, &image(Rootfs::Host, None));
        assert!(destinations(&host).contains(&"/run"));
        let own = config(&spec, &image(Rootfs::Layers(vec![]), None));
        assert!(!destinations(&own).contains(&"/run"));
        assert!(!destinations(&own).contains(&BINARY));
    }

    #[test]
    fn volumes_come_after_what_they_may_lie_in() {
        let mut spec = ContainerSpec::default();
        let destination = PathBuf::from("/run/secrets");
        spec.mounts.push(Mount {
            source: "/x".into(),
            destination,
            read_only: true,
        });
        let config = config(&spec, &image(Rootfs::Host, None));
        let order = destinations(&config);
        let place = |path| order.iter().position(|at| *at == path).unwrap();
        assert!(place("/run") < place("/run/secrets"));
    }

    #[test]
    fn limits_are_translated_as_the_kubelet_does() {
        let limits = Limits {
            memory: Some(1 << 20),
            cpu_millis: Some(250),
            cpu_request_millis: Some(100),
        };
        assert_eq!(
            resources(&limits, false),
            json!({
                "devices": [{ "allow": false, "access": "rwm" }],
                "memory": { "limit": 1 << 20 },
                "cpu": { "period": 100_000, "quota": 25_000, "shares": 102 },
            })
        );
        let tiny = Limits {
            cpu_millis: Some(1),
            cpu_request_millis: Some(0),
            memory: None,
        };
        assert_eq!(resources(&tiny, false)["cpu"]["quota"], 1000);
        assert_eq!(resources(&tiny, false)["cpu"]["shares"], 2);
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let of = |add: &[&str], drop: &[&str]| {
            let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
            capabilities(
                &ContainerSpec {
                    capabilities_add: strings(add),
                    capabilities_drop: strings(drop),
                    ..ContainerSpec::default()
                },
                u64::MAX,
            )
        };
        assert_eq!(of(&[], &[]), DEFAULT_CAPABILITIES);
        assert_eq!(of(&["NET_ADMIN"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert_eq!(of(&["cap_chown"], &[]).len(), DEFAULT_CAPABILITIES.len());
        assert!(!of(&[], &["NET_RAW"]).contains(&"CAP_NET_RAW".to_owned()));
        assert_eq!(
            of(&["ALL"], &["SYS_TIME"]).len(),
            ALL_CAPABILITIES.len() - 1
        );
        let privileged = ContainerSpec {
            privileged: true,
            ..ContainerSpec::default()
        };
        assert_eq!(capabilities(&privileged, u64::MAX), ALL_CAPABILITIES);
        // Without CAP_SYS_RESOURCE, bit 24, of our own.
        let without = capabilities(&privileged, !(1 << 24));
        assert_eq!(without.len(), ALL_CAPABILITIES.len() - 1);
        assert!(!without.contains(&"CAP_SYS_RESOURCE".to_owned()));
    }
}
