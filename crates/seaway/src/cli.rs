//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::Ipv4Net;

/// The Kubernetes service network in one binary.
#[derive(Debug, Parser)]
#[command(name = "seaway", version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what a Service does: a cluster, Pods, a name, addresses, real requests, explained step by step
    Demo(DemoOptions),
    /// Start a whole cluster network on this machine
    Up(UpOptions),
    /// End a lab and take away everything it made; its data stays unless --purge
    Down(DownOptions),
    /// Show the labs that run: processes, nodes, Pods
    Status(StatusOptions),
    /// Print the credentials that kubectl needs (export KUBECONFIG=$(seaway kubeconfig --path))
    Kubeconfig(KubeconfigOptions),
    /// Print what the processes of a lab have logged
    Logs(LogsOptions),
    /// Manage the images that Pods can run
    Image(ImageOptions),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// What Seaway starts by itself
    #[command(hide = true)]
    Internal {
        #[command(subcommand)]
        process: Internal,
    },
}

/// Which lab.
#[derive(Debug, Args)]
pub(crate) struct Lab {
    /// Name of the lab
    #[arg(long, default_value = "lab", env = "SEAWAY_LAB")]
    pub(crate) name: String,
    /// Directory of everything that survives `down`: objects, credentials, images
    #[arg(long, value_name = "DIR", default_value = seaway_lab::paths::DEFAULT_DATA, env = "SEAWAY_DATA")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// Directory for the lab's data
    #[arg(long, value_name = "DIR", default_value = seaway_lab::paths::DEFAULT_DATA, env = "SEAWAY_DATA")]
    pub(crate) data: PathBuf,
    /// Leave the lab running and say how to go on with kubectl
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    pub(crate) lab: Lab,
    /// Number of nodes [default: as last time, or 3]
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<u32>,
    /// Return when the lab is ready, and leave it running
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Let nodes and Pods reach beyond this machine
    #[arg(long)]
    pub(crate) internet: bool,
    /// Port of the API server on 127.0.0.1 [default: as last time, or the first free one from 6443]
    #[arg(long, value_name = "PORT")]
    pub(crate) api_port: Option<u16>,
    /// Addresses of nodes [default: as last time, or the first free of 10.87.0.0/24, 10.87.1.0/24, …]
    #[arg(long, value_name = "CIDR")]
    pub(crate) node_cidr: Option<Ipv4Net>,
    /// Addresses of Pods, a /24 for each node [default: as last time, or the first free of 10.244.0.0/16, …]
    #[arg(long, value_name = "CIDR")]
    pub(crate) pod_cidr: Option<Ipv4Net>,
    /// Addresses of Services [default: as last time, or the first free of 10.96.0.0/12, …]
    #[arg(long, value_name = "CIDR")]
    pub(crate) service_cidr: Option<Ipv4Net>,
    /// Admission plugins of the API server to switch off, as kube-apiserver names them
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        value_parser = seaway_apiserver::admission::NAMES,
    )]
    pub(crate) disable_admission_plugins: Vec<String>,
    /// Leave Pods to a scheduler that you bring yourself
    #[arg(long)]
    pub(crate) without_scheduler: bool,
    /// Ports that Services get on nodes
    #[arg(long, value_name = "FIRST-LAST", default_value_t)]
    pub(crate) service_node_port_range: seaway_lab::PortRange,
}

#[derive(Debug, Args)]
pub(crate) struct DownOptions {
    #[command(flatten)]
    pub(crate) lab: Lab,
    /// Remove the lab's data too: objects, credentials, logs (images are shared and stay)
    #[arg(long)]
    pub(crate) purge: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// Only this lab
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Directory of the labs' data
    #[arg(long, value_name = "DIR", default_value = seaway_lab::paths::DEFAULT_DATA, env = "SEAWAY_DATA")]
    pub(crate) data: PathBuf,
    /// How to print
    #[arg(long, short, default_value = "table")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct KubeconfigOptions {
    #[command(flatten)]
    pub(crate) lab: Lab,
    /// Print where the file is instead of what is in it
    #[arg(long)]
    pub(crate) path: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsOptions {
    #[command(flatten)]
    pub(crate) lab: Lab,
    /// supervisor, control-plane, node-1, … [default: all]
    pub(crate) process: Option<String>,
    /// Go on printing what is added
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImageOptions {
    /// Directory of the labs' data
    #[arg(long, global = true, value_name = "DIR", default_value = seaway_lab::paths::DEFAULT_DATA, env = "SEAWAY_DATA")]
    pub(crate) data: PathBuf,
    #[command(subcommand)]
    pub(crate) action: ImageAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageAction {
    /// Take in an OCI layout (directory or archive) or the archive of `docker save`
    Import {
        /// The directory or file
        path: PathBuf,
        /// Name to give it [default: the names it brings along]
        #[arg(long)]
        name: Option<String>,
    },
    /// List images
    List {
        /// How to print
        #[arg(long, short, default_value = "table")]
        output: Output,
    },
    /// Take a name away, and with the last name the image
    Remove {
        /// The image's name
        image: String,
    },
    /// Give an image another name
    Tag {
        /// A name that it has
        source: String,
        /// The name to give
        target: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Internal {
    /// PID 1 of a lab
    LabInit {
        /// The request, as JSON
        request: String,
    },
    /// API server and controllers
    ControlPlane {
        /// Configuration file
        config: PathBuf,
    },
    /// What runs on a node
    Agent {
        /// Configuration file
        config: PathBuf,
    },
    /// Holder of a Pod's namespaces
    #[command(disable_help_flag = true)]
    Sandbox(Raw),
    /// Keeper of a container
    #[command(disable_help_flag = true)]
    Shim(Raw),
    /// A process in a container
    #[command(disable_help_flag = true)]
    ExecHelper(Raw),
    /// The image seaway/whoami
    #[command(disable_help_flag = true)]
    Whoami(Raw),
    /// One HTTP request, for Pods that have no curl
    Get {
        /// `http://host[:port][/path]`
        url: String,
    },
}

/// Arguments that another room reads.
#[derive(Debug, Args)]
pub(crate) struct Raw {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}
