//! `seaway image`

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use seaway_pods::images::{ImageEntry, Images};

use crate::cli::{ImageAction, ImageOptions, Output};

pub(crate) fn run(options: &ImageOptions) -> anyhow::Result<()> {
    seaway_lab::up::require_root("image")?;
    let images = Images::open(&std::path::absolute(&options.data)?.join("images"))?;
    match &options.action {
        ImageAction::Import { path, name } => {
            for entry in images.import(path, name.as_deref())? {
                anstream::println!(
                    "imported {} ({})",
                    entry.names.join(", "),
                    short(&entry.info.id)
                );
            }
        }
        ImageAction::List {
            output: Output::Json,
        } => {
            let list: Vec<_> = images.list()?.iter().map(json).collect();
            anstream::println!("{}", serde_json::to_string_pretty(&list)?);
        }
        ImageAction::List {
            output: Output::Table,
        } => {
            let mut table = Table::new();
            table.load_style(NOTHING).set_header(["NAME", "ID", "SIZE"]);
            for entry in images.list()? {
                let size = match entry.info.built_in {
                    Some(_) => "built in".to_owned(),
                    None => format!("{:.1} MB", entry.info.size as f64 / 1e6),
                };
                for name in &entry.names {
                    table.add_row([name.clone(), short(&entry.info.id).to_owned(), size.clone()]);
                }
            }
            anstream::println!("{table}");
        }
        ImageAction::Remove { image } => {
            images.remove(image)?;
            anstream::println!("removed {image}");
        }
        ImageAction::Tag { source, target } => {
            images.tag(source, target)?;
            anstream::println!("tagged {source} as {target}");
        }
    }
    Ok(())
}

fn json(entry: &ImageEntry) -> serde_json::Value {
    serde_json::json!({
        "names": entry.names,
        "id": entry.info.id,
        "sizeBytes": entry.info.size,
        "builtIn": entry.info.built_in.is_some(),
    })
}

/// The first twelve digits, as Docker prints ids.
fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}
