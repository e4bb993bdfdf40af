//! What of a log is asked for. Pure.
//! Source: `PodLogOptions`, Kubernetes API reference.

use jiff::{SignedDuration, Timestamp};

use crate::server::attachment::pairs;

/// Which output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Which {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// `PodLogOptions`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
    pub(super) tail_lines: Option<u64>,
    pub(super) since: Option<Timestamp>,
    pub(super) limit_bytes: Option<u64>,
    pub(super) which: Which,
}

impl Options {
    pub(super) fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let mut options = Options::default();
        for (name, value) in pairs(query) {
            let yes = matches!(value.as_str(), "true" | "1");
            let bad = || format!("invalid value {value:?} for {name}");
            match name.as_str() {
                "follow" => options.follow = yes,
                "previous" => options.previous = yes,
                "timestamps" => options.timestamps = yes,
                // A kubelet still knows the name that it had before Kubernetes 1.0.
                "tail" if value == "all" => options.tail_lines = None,
                "tail" | "tailLines" => {
                    options.tail_lines = Some(value.parse().map_err(|_| bad())?);
                }
                "limitBytes" => {
                    let limit: u64 = value.parse().map_err(|_| bad())?;
                    options.limit_bytes = Some(limit).filter(|limit| *limit > 0);
                    options.limit_bytes.ok_or_else(bad)?;
                }
                "sinceSeconds" => {
                    let seconds: i64 = value.parse().map_err(|_| bad())?;
                    let since = now
                        .checked_sub(SignedDuration::from_secs(seconds))
                        .map_err(|_| bad())?;
                    options.since = Some(since);
                }
                "sinceTime" => options.since = Some(value.parse().map_err(|_| bad())?),
                "stream" => {
                    options.which = match value.as_str() {
                        "All" => Which::All,
                        "Stdout" => Which::Stdout,
                        "Stderr" => Which::Stderr,
                        _ => return Err(bad()),
                    }
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_mean_nothing_are_refused() {
        for query in [
            "tailLines=x",
            "tailLines=-1",
            "sinceTime=yesterday",
            "limitBytes=0",
            "sinceSeconds=9e9",
            "stream=stdout",
        ] {
            assert!(
                Options::parse(query, Timestamp::UNIX_EPOCH).is_err(),
                "{query}"
            );
        }
    }

    #[test]
    fn the_old_name_of_the_tail_is_known() {
        let tail = |query| {
            let options = Options::parse(query, Timestamp::UNIX_EPOCH).unwrap();
            options.tail_lines
        };
        assert_eq!(tail("tail=3"), Some(3));
        assert_eq!(tail("tailLines=3&tail=all"), None);
    }
}
