//! `seaway kubeconfig`

use seaway_lab::error::Error;
use seaway_lab::paths::Paths;

use crate::cli::KubeconfigOptions;

pub(crate) fn run(options: &KubeconfigOptions) -> anyhow::Result<()> {
    let name = &options.lab.name;
    let path = Paths::new(&options.lab.data, name).kubeconfig();
    if !path.exists() {
        return Err(Error::Unknown {
            name: name.clone(),
            data: options.lab.data.clone(),
        }
        .into());
    }
    if options.path {
        anstream::println!("{}", path.display());
    } else {
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        anstream::print!("{text}");
    }
    Ok(())
}
