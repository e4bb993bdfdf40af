//! From the lines of a log, as the CRI prescribes them, to what `kubectl logs` shows. Pure.
//! Source: `pkg/kubelet/kuberuntime/logs`.

use bytes::Bytes;
use jiff::Timestamp;

use super::options::{Options, Which};

/// Turns CRI lines into what is shown. Pure; is fed pieces of any size.
#[derive(Debug)]
pub(super) struct View {
    timestamps: bool,
    which: Which,
    since: Option<Timestamp>,
    room: Option<u64>,
    rest: Vec<u8>,
    at_line_start: bool,
}

impl View {
    pub(super) fn new(options: &Options) -> Self {
        View {
            which: options.which,
            timestamps: options.timestamps,
            since: options.since,
            room: options.limit_bytes,
            rest: Vec::new(),
            at_line_start: true,
        }
    }

    /// Nothing more will be shown.
    pub(super) fn full(&self) -> bool {
        self.room == Some(0)
    }

    pub(super) fn feed(&mut self, data: &[u8]) -> Bytes {
        let mut shown = Vec::with_capacity(data.len());
        self.rest.extend_from_slice(data);
        let whole = self
            .rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.show(&line[..line.len() - 1], &mut shown);
        }
        if let Some(room) = &mut self.room {
            shown.truncate(usize::try_from(*room).unwrap_or(usize::MAX));
            *room -= u64::try_from(shown.len()).unwrap_or(*room).min(*room);
        }
        shown.into()
    }

    fn show(&mut self, line: &[u8], shown: &mut Vec<u8>) {
        let Some(Line {
            time,
            stream,
            partial,
            text,
        }) = Line::parse(line)
        else {
            return;
        };
        if ![Which::All, stream].contains(&self.which) {
            return;
        }
        if let Some(since) = self.since
            && time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        if self.timestamps && self.at_line_start {
            shown.extend_from_slice(time.as_bytes());
            shown.push(b' ');
        }
        shown.extend_from_slice(text);
        if !partial {
            shown.push(b'\n');
        }
        self.at_line_start = !partial;
    }
}

/// `<RFC 3339> stdout|stderr F|P <text>`
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    stream: Which,
    partial: bool,
    text: &'a [u8],
}

impl<'a> Line<'a> {
    /// `None` for what is not a line of a log: it is left out.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Which::Stdout,
            b"stderr" => Which::Stderr,
            _ => return None,
        };
        let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Line {
            time,
            stream,
            partial,
            text: parts.next().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOG: &[u8] = b"2026-11-21T10:00:00.1Z stdout F one\n\
                         2026-11-21T10:00:01.2Z stderr P two \n\
                         2026-11-21T10:00:01.3Z stderr F and a half\n\
                         2026-11-21T10:00:02.4Z stdout F \n\
                         2026-11-21T10:00:03.5Z stdout F four\n";

    fn show(query: &str) -> String {
        let now = "2026-11-21T10:00:04Z".parse().unwrap();
        let options = Options::parse(query, now).unwrap();
        let mut view = View::new(&options);
        String::from_utf8(view.feed(LOG).to_vec()).unwrap()
    }

    #[test]
    fn options_choose_what_is_shown() {
        for (query, text) in [
            ("", "one\ntwo and a half\n\nfour\n"),
            ("sinceTime=2026-11-21T10:00:02Z", "\nfour\n"),
            ("sinceSeconds=1", "four\n"),
            ("limitBytes=6", "one\ntw"),
            ("stream=All", "one\ntwo and a half\n\nfour\n"),
            ("stream=Stdout", "one\n\nfour\n"),
            ("stream=Stderr", "two and a half\n"),
            (
                "timestamps=true",
                "2026-11-21T10:00:00.1Z one\n2026-11-21T10:00:01.2Z two and a half\n\
                 2026-11-21T10:00:02.4Z \n2026-11-21T10:00:03.5Z four\n",
            ),
        ] {
            assert_eq!(show(query), text, "{query}");
        }
    }

    #[test]
    fn what_is_not_a_log_line_is_left_out() {
        for line in [
            &b""[..],
            b"x",
            b"t stdout",
            b"t stdin F x",
            b"t stdout Q x",
            b"\xff\xfe stdout F x",
        ] {
            assert_eq!(Line::parse(line), None, "{line:?}");
        }
        assert_eq!(
            Line::parse(b"t stdout F"),
            Some(Line {
                time: "t",
                stream: Which::Stdout,
                partial: false,
                text: b""
            })
        );
        assert_eq!(
            Line::parse(b"t stderr P:x a b"),
            Some(Line {
                time: "t",
                stream: Which::Stderr,
                partial: true,
                text: b"a b"
            })
        );
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_show_the_same(cuts in proptest::collection::vec(0..LOG.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.push(LOG.len());
            cuts.sort_unstable();
            let mut view = View::new(&Options::default());
            let (mut shown, mut from) = (Vec::new(), 0);
            for cut in cuts {
                shown.extend_from_slice(&view.feed(&LOG[from..cut]));
                from = cut;
            }
            prop_assert_eq!(String::from_utf8(shown).unwrap(), show(""));
        }

        #[test]
        fn any_bytes_can_be_fed(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = View::new(&Options::default()).feed(&data);
        }
    }
}
