//! Rewrites the links of an HTML page as it passes. Pure, and bounded: nothing is held but a tag that is not complete.
//!
//! Everything but the values that change is passed on byte for byte. A tag longer than [`LONGEST`] is passed on as it
//! is.
//! Source: `rewriteHTML` and `atomsToAttrs`, `k8s.io/apimachinery/pkg/util/proxy/transport.go`; HTML Living Standard,
//! section 13.2.5 (tokenization).

use std::ops::Range;

/// A tag that is longer is not looked into.
const LONGEST: usize = 64 * 1024;

/// Attributes that hold links, by element.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements in which nothing but their end is a tag.
const RAW: [&str; 9] = [
    "iframe", "noembed", "noframes", "noscript", "script", "style", "textarea", "title", "xmp",
];

/// A page on its way.
#[derive(Debug)]
pub(super) struct Page<F> {
    rewrite: F,
    held: Vec<u8>,
    within: Within,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Text,
    Comment,
    /// `<!…>`, `<?…>`, `</…>`
    Markup,
    /// An element whose content is not markup.
    Raw(&'static str),
    /// After `<plaintext>` there is only text.
    Plain,
}

impl<F: FnMut(&str) -> Option<String>> Page<F> {
    /// `rewrite` says what a link has to be instead, if it has to be something else.
    pub(super) fn new(rewrite: F) -> Self {
        Self {
            rewrite,
            held: Vec::new(),
            within: Within::Text,
        }
    }

    /// Takes a piece of the page and appends what can be passed on.
    pub(super) fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(piece);
        let mut at = 0;
        while at < text.len() {
            let passed = self.step(&text[at..], out);
            if passed == 0 {
                break;
            }
            at += passed;
        }
        self.held = text.split_off(at);
        if self.held.len() > LONGEST {
            // Its first byte is passed on as text, and the rest looked at anew.
            let rest = self.held.split_off(1);
            out.append(&mut self.held);
            self.feed(&rest, out);
        }
    }

    /// The page is over: what was held is passed on.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    /// Passes on the beginning of `text`; how much of it, 0 if more has to come first.
    fn step(&mut self, text: &[u8], out: &mut Vec<u8>) -> usize {
        match self.within {
            Within::Plain => pass(text, text.len(), out),
            Within::Comment => self.until(text, b"-->", out),
            Within::Markup => self.until(text, b">", out),
            Within::Raw(element) => self.raw(text, element, out),
            Within::Text => match text.iter().position(|byte| *byte == b'<') {
                Some(0) => self.tag(text, out),
                Some(at) => pass(text, at, out),
                None => pass(text, text.len(), out),
            },
        }
    }

    /// Passes on up to an end mark, or all that cannot be its beginning.
    fn until(&mut self, text: &[u8], end: &[u8], out: &mut Vec<u8>) -> usize {
        match find(text, end) {
            Some(at) => {
                self.within = Within::Text;
                pass(text, at + end.len(), out)
            }
            None => pass(text, (text.len() + 1).saturating_sub(end.len()), out),
        }
    }

    fn raw(&mut self, text: &[u8], element: &str, out: &mut Vec<u8>) -> usize {
        let ending = |at: &usize| {
            let name = text.get(at + 2..at + 2 + element.len());
            let after = text.get(at + 2 + element.len());
            text[*at] == b'<'
                && text.get(at + 1) == Some(&b'/')
                && name.is_some_and(|name| name.eq_ignore_ascii_case(element.as_bytes()))
                && after.is_some_and(|byte| is_space(*byte) || b"/>".contains(byte))
        };
        match (0..text.len()).find(ending) {
            Some(at) => {
                self.within = Within::Markup;
                pass(text, at + 2, out)
            }
            // The end may have begun.
            None => pass(text, text.len().saturating_sub(element.len() + 2), out),
        }
    }

    /// What begins with `<`.
    fn tag(&mut self, text: &[u8], out: &mut Vec<u8>) -> usize {
        match text.get(1..) {
            Some([first, ..]) if first.is_ascii_alphabetic() => match Tag::read(text) {
                Some(tag) => self.start(&tag, text, out),
                None => 0,
            },
            Some([b'!', ..]) if b"<!--".starts_with(&text[..text.len().min(4)]) => {
                if text.len() < 4 {
                    return 0;
                }
                self.within = Within::Comment;
                // `<!-->` is a comment as well, so its end may use these dashes.
                pass(text, 2, out)
            }
            Some([b'!' | b'?', ..]) => {
                self.within = Within::Markup;
                pass(text, 2, out)
            }
            Some([b'/', next, ..]) if next.is_ascii_alphabetic() || *next == b'>' => {
                self.within = Within::Markup;
                pass(text, 2, out)
            }
            Some([b'/', _, ..]) => {
                self.within = Within::Markup;
                pass(text, 2, out)
            }
            Some([b'/'] | []) | None => 0,
            Some(_) => pass(text, 1, out),
        }
    }

    fn start(&mut self, tag: &Tag, text: &[u8], out: &mut Vec<u8>) -> usize {
        let name = lower(&text[tag.name.clone()]);
        let links = LINKS.iter().find(|(element, _)| *element == name);
        let mut from = 0;
        for (attribute, value) in &tag.attributes {
            let attribute = lower(&text[attribute.clone()]);
            if !links.is_some_and(|(_, attributes)| attributes.contains(&attribute.as_str())) {
                continue;
            }
            let link = std::str::from_utf8(&text[value.clone()]).ok();
            if let Some(instead) = link.and_then(&mut self.rewrite) {
                out.extend_from_slice(&text[from..value.start]);
                out.extend_from_slice(instead.as_bytes());
                from = value.end;
            }
        }
        out.extend_from_slice(&text[from..tag.end]);
        self.within = match RAW.iter().find(|raw| **raw == name) {
            Some(raw) => Within::Raw(raw),
            None if name == "plaintext" => Within::Plain,
            None => Within::Text,
        };
        tag.end
    }
}

/// Where the parts of a start tag are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tag {
    name: Range<usize>,
    /// Names and values.
    attributes: Vec<(Range<usize>, Range<usize>)>,
    /// Behind its `>`.
    end: usize,
}

impl Tag {
    /// Reads a tag; `None` if it is not complete.
    fn read(text: &[u8]) -> Option<Self> {
        let ends_name = |byte: u8| is_space(byte) || b"/>".contains(&byte);
        let scan = |from: usize, stop: &dyn Fn(u8) -> bool| {
            let found = text[from..].iter().position(|byte| stop(*byte));
            found.map(|at| from + at)
        };
        let mut at = scan(1, &ends_name)?;
        let mut tag = Self {
            name: 1..at,
            ..Self::default()
        };
        loop {
            at = scan(at, &|byte| !is_space(byte) && byte != b'/')?;
            if text[at] == b'>' {
                tag.end = at + 1;
                return Some(tag);
            }
            // A name may begin with an equals sign.
            let end = scan(at + 1, &|byte| ends_name(byte) || byte == b'=')?;
            let name = at..end;
            at = scan(end, &|byte| !is_space(byte))?;
            if text[at] != b'=' {
                tag.attributes.push((name, end..end));
                continue;
            }
            at = scan(at + 1, &|byte| !is_space(byte))?;
            let value = match text[at] {
                quote @ (b'"' | b'\'') => {
                    let end = scan(at + 1, &|byte| byte == quote)?;
                    let value = at + 1..end;
                    at = end + 1;
                    value
                }
                b'>' => at..at,
                _ => {
                    let end = scan(at, &|byte| is_space(byte) || byte == b'>')?;
                    let value = at..end;
                    at = end;
                    value
                }
            };
            tag.attributes.push((name, value));
        }
    }
}

fn pass(text: &[u8], length: usize, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&text[..length]);
    length
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b'\x0c')
}

fn lower(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(pieces: &[&[u8]]) -> Vec<u8> {
        let mut page =
            Page::new(|link: &str| link.starts_with('/').then(|| format!("/proxy{link}")));
        let mut out = Vec::new();
        for piece in pieces {
            page.feed(piece, &mut out);
        }
        page.finish(&mut out);
        out
    }

    const PAGE: &str = r#"<!DOCTYPE html><html><head><title><a href="/no"></title>
        <script src=/s.js>if (a<b) document.write('<a href="/no">')</script ><style>a{}</style>
        <link rel=x href='/l.css' ></head><body background="/b.png"><!-- <a href="/no"> -->
        <A HREF = "/a?x=1&amp;y=2" title="/no">x</A><img src="/i.png"/><a>1 < 2 & 3 > 2</a>
        <a href="other">é</a><a href=/unquoted>x</a><input disabled formaction="/f">
        <textarea><a href="/no"></textarea><?php <a href="/no"?><a href="/end">"#;

    #[test]
    fn links_are_rewritten_and_everything_else_stays() {
        let expected = PAGE
            .replace("src=/s", "src=/proxy/s")
            .replace("'/l", "'/proxy/l")
            .replace("\"/b", "\"/proxy/b")
            .replace("\"/a", "\"/proxy/a")
            .replace("\"/i", "\"/proxy/i")
            .replace("=/un", "=/proxy/un")
            .replace("\"/f", "\"/proxy/f")
            .replace("\"/end", "\"/proxy/end");
        let out = String::from_utf8(through(&[PAGE.as_bytes()])).unwrap();
        assert_eq!(out, expected);
    }

    #[test]
    fn an_empty_comment_ends_at_once() {
        let out = through(&[b"<!--><a href=\"/x\">"]);
        assert_eq!(out, b"<!--><a href=\"/proxy/x\">");
    }

    #[test]
    fn a_tag_that_never_ends_is_passed_on_and_not_kept() {
        let long = [b"<a ".to_vec(), vec![b'x'; 3 * LONGEST]].concat();
        let mut page = Page::new(|_: &str| None);
        let mut out = Vec::new();
        for piece in long.chunks(1000) {
            page.feed(piece, &mut out);
            assert!(page.held.len() <= LONGEST + 1000);
        }
        page.finish(&mut out);
        assert_eq!(out, long);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same(cut in 1usize..60) {
            let pieces: Vec<&[u8]> = PAGE.as_bytes().chunks(cut).collect();
            prop_assert_eq!(through(&pieces), through(&[PAGE.as_bytes()]));
        }

        #[test]
        fn what_has_no_links_stays_as_it_is(text in "[<>/!?a=\"' x-]{0,80}", cut in 1usize..20) {
            let mut page = Page::new(|_: &str| None);
            let mut out = Vec::new();
            for piece in text.as_bytes().chunks(cut) {
                page.feed(piece, &mut out);
            }
            page.finish(&mut out);
            prop_assert_eq!(out, text.as_bytes());
        }

        #[test]
        fn any_bytes_pass(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(through(&[&bytes]).len() >= bytes.len());
        }
    }
}
