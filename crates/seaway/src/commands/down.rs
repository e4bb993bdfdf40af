//! `seaway down`

use seaway_lab::down::{Outcome, down};

use crate::cli::DownOptions;

pub(crate) fn run(options: &DownOptions) -> anyhow::Result<()> {
    let name = &options.lab.name;
    let data = std::path::absolute(&options.lab.data)?;
    let said = match down(&data, name, options.purge)? {
        Outcome::Ended => "ended",
        Outcome::Swept => "cleaned up",
        Outcome::Nothing => "was not running",
    };
    anstream::eprintln!("lab {name:?} {said}");
    Ok(())
}
