//! `seaway logs`

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use seaway_lab::error::Error;
use seaway_lab::paths::Paths;

use crate::cli::LogsOptions;

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn run(options: &LogsOptions) -> anyhow::Result<()> {
    let name = &options.lab.name;
    let paths = Paths::new(&options.lab.data, name);
    if !paths.logs().is_dir() {
        return Err(Error::Unknown {
            name: name.clone(),
            data: options.lab.data.clone(),
        }
        .into());
    }
    let mut processes: Vec<String> = std::fs::read_dir(paths.logs())
        .map_err(Error::file("read", paths.logs()))?
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    processes.sort();
    if let Some(wanted) = &options.process {
        anyhow::ensure!(
            processes.contains(wanted),
            "lab {name:?} has no process {wanted:?}; it has {}",
            processes.join(", ")
        );
        processes.retain(|process| process == wanted);
    }
    let alone = processes.len() == 1;
    let mut logs = Vec::new();
    for process in processes {
        let path = paths.log(&process);
        let file = File::open(&path).map_err(Error::file("read", &path))?;
        let prefix = if alone {
            String::new()
        } else {
            format!("{process}: ")
        };
        logs.push((prefix, BufReader::new(file), Vec::new()));
    }
    let mut out = std::io::stdout().lock();
    loop {
        for (prefix, log, line) in &mut logs {
            // A line that is not whole yet waits for the next look.
            while log.read_until(b'\n', line).context("cannot read a log")? > 0
                && line.ends_with(b"\n")
            {
                let written = out
                    .write_all(prefix.as_bytes())
                    .and_then(|()| out.write_all(line));
                if written.is_err() {
                    // The reader went away (`| head`): nothing more to do.
                    return Ok(());
                }
                line.clear();
            }
        }
        if !options.follow {
            return Ok(());
        }
        out.flush().ok();
        std::thread::sleep(LOOK);
    }
}
